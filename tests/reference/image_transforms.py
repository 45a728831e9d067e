"""Crop, flip and normalisation of nested lists of numbers, pixel by pixel."""

Image = list[list[list[float]]]  # C, Y, X


def _mirrored(position: int, size: int) -> int:
    while not 0 <= position < size:
        position = -position if position < 0 else 2 * (size - 1) - position
    return position


def crop(image: Image, offset_y: int, offset_x: int, padding: int, mode: str) -> Image:
    result = []
    for channel in image:
        height, width = len(channel), len(channel[0])
        rows = []
        for y in range(height):
            row = []
            for x in range(width):
                at_y, at_x = y + offset_y - padding, x + offset_x - padding
                if mode == "reflect":
                    row.append(channel[_mirrored(at_y, height)][_mirrored(at_x, width)])
                elif 0 <= at_y < height and 0 <= at_x < width:
                    row.append(channel[at_y][at_x])
                else:
                    row.append(0)
            rows.append(row)
        result.append(rows)
    return result


def flip(image: Image) -> Image:
    return [[[row[len(row) - 1 - x] for x in range(len(row))] for row in channel] for channel in image]


def normalize(image: Image, mean: list[float], std: list[float], scale: float) -> Image:
    return [
        [[(pixel * scale - mean[c]) / std[c] for pixel in row] for row in channel] for c, channel in enumerate(image)
    ]
