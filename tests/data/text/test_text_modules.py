import gzip

import pytest
import torch

from graphseq.core import DataError, Vocabulary
from graphseq.data import (
    CharacterDataModule,
    SyntheticTextDataModule,
    TinyShakespeareDataModule,
    WikiText2SmallDataModule,
    WordDataModule,
    sentence_text,
)

TEXT = "abcabcabcabcabcabcab"  # 20 characters


def write(folder, text, name="text.txt"):
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def whole(data, stage):
    """The text of a split, put together from its windows."""
    parts = [row[:size] for batch in data.batches(stage) for row, size in zip(batch.ids, batch.lengths, strict=True)]
    return data.vocabulary.decode(torch.cat([parts[0], *(part[1:] for part in parts[1:])]).tolist())


def test_splits_stand_one_behind_another(tmp_path):
    text = sentence_text(60, generator=torch.Generator().manual_seed(1)).numpy().tobytes().decode()
    data = CharacterDataModule(write(tmp_path, text), length=7, fractions=(0.5, 0.25, 0.25), batch_size=4)
    train, val = round(0.5 * len(text)), round(0.75 * len(text))
    assert whole(data, "val") == text[train:val]
    assert whole(data, "test") == text[val:]
    in_order = [data.store.take(data.splits["train"][n : n + 1]) for n in range(len(data.splits["train"]))]
    parts = [batch.ids[0] for batch in in_order]
    joined = data.vocabulary.decode(torch.cat([parts[0], *(part[1:] for part in parts[1:])]).tolist())
    assert joined == text[:train]
    assert data.store.tokens.dtype == torch.uint8


def test_vocabulary_is_of_the_training_split_only(tmp_path):
    text = TEXT + "xyabxz" + "xaqb"
    data = CharacterDataModule(write(tmp_path, text), length=4, fractions=(20 / 30, 6 / 30, 4 / 30))
    with pytest.warns(UserWarning, match=r"4 of 6 .*val, 2 of 4 .*test"):
        data.load()
    assert data.vocabulary == Vocabulary("abc", "character")
    assert (data.vocab_size, data.num_outputs) == (4, 4)
    assert data.unknown_tokens == {"train": 0, "val": 4, "test": 2}
    batch = next(data.batches("val"))
    assert batch.ids.flatten()[:5].tolist() == [0, 0, 1, 2, 0]


def test_words_and_rare_ones(tmp_path):
    train = write(tmp_path, "the cat , the <unk> .\nthe dog , a cat .\n")
    val = write(tmp_path, "a mouse\n the cat .", "val.txt")
    test = write(tmp_path, gzip.compress(b"the cat\r\nthe dog"), "test.txt.gz")
    data = WordDataModule(train, val_path=val, test_path=test, length=3, min_count=2, batch_size=8)
    with pytest.warns(UserWarning, match=r"2 of 6 .*val, 1 of 5 .*test"):
        data.load()
    assert data.vocabulary.tokens == ["<unk>", "the", ",", ".", "<eos>", "cat"]
    assert data.unknown_tokens["train"] == 3
    assert whole(data, "test") == "the cat\nthe <unk>"
    assert whole(data, "val") == "<unk> <unk>\nthe cat ."


def test_a_file_for_test_leaves_the_rest_to_train_and_validation(tmp_path):
    train, test = write(tmp_path, TEXT * 5), write(tmp_path, "abab", "test.txt")
    data = CharacterDataModule(train, test_path=test, length=4, fractions=(0.6, 0.2, 0.2), batch_size=50)
    assert (whole(data, "val"), whole(data, "test")) == ((TEXT * 5)[75:], "abab")


def test_stride_is_for_training_only(tmp_path):
    path = write(tmp_path, TEXT * 5)
    data = CharacterDataModule(path, length=8, stride=2, fractions=(0.5, 0.25, 0.25), batch_size=1)
    assert data.split_sizes() == {"train": 22, "val": 3, "test": 3}


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("", {}, "text.txt is empty"),
        (b"\xef\xbb\xbf", {}, "text.txt is empty"),
        ("a", {}, "train split has 1 token"),
        ("ab", {"length": 1}, "val split has 0 tokens"),
        ("ab" * 20, {"length": 36}, "length is 36, .* 36"),
        (b"abc\nd\xff\xfe", {}, r"0xff at position 5, line 2"),
    ],
)
def test_bad_text(text, options, message, tmp_path):
    with pytest.raises(DataError, match=message):
        CharacterDataModule(write(tmp_path, text), **options).load()


def test_bad_files(tmp_path):
    with pytest.raises(DataError, match=r"nowhere.txt"):
        CharacterDataModule(tmp_path / "nowhere.txt").load()
    with pytest.raises(DataError, match=r"no.gz"):
        CharacterDataModule(write(tmp_path, "not packed", "no.gz")).load()
    with pytest.raises(DataError, match="val split has 0"):
        WordDataModule(write(tmp_path, "a b c " * 9), val_path=write(tmp_path, " ", "v.txt"), length=4).load()


@pytest.mark.parametrize("options", [{"length": 0}, {"stride": 0}, {"stride": 5, "length": 4}, {"min_count": 0}])
def test_bad_arguments(options):
    with pytest.raises(ValueError, match=f"{next(iter(options))} is"):
        CharacterDataModule("text.txt", **options)


def test_a_checkpoint_brings_its_vocabulary(tmp_path):
    first = CharacterDataModule(write(tmp_path, TEXT * 5), length=4)
    text = "cbzcbzcbzcbz" * 9 + "cba"  # `a` stands in the test split alone, where this vocabulary does not know it
    second = CharacterDataModule(write(tmp_path, text, "other.txt"), length=4, batch_size=100)
    state = first.state_dict()
    with pytest.warns(UserWarning, match="1 of 6 .*test"):
        second.load()
    with pytest.warns(UserWarning, match="checkpoint .*splits|2 of 5 .*val, 1 of 6 .*test"):
        second.load_state_dict(state)
    assert second.vocabulary == first.vocabulary
    assert whole(second, "test") == "cb<unk>cba"
    words = WordDataModule(write(tmp_path, "a b " * 50, "words.txt"), length=4).state_dict()
    with pytest.warns(UserWarning, match="checkpoint .*splits"), pytest.raises(DataError, match="words"):
        second.load_state_dict(words)


def test_generated_text_is_a_function_of_the_seed():
    draw = lambda seed: sentence_text(50, generator=torch.Generator().manual_seed(seed))  # noqa: E731
    assert torch.equal(draw(3), draw(3))
    assert not torch.equal(draw(3), draw(4))
    lines = draw(3).numpy().tobytes().decode().splitlines()
    assert len(lines) == 50
    for line in lines:
        verb = next(word for word in line.split() if word.rstrip("s") in ("see", "follow", "find", "call"))
        subject = line.split()[line.split().index(verb) - 1]
        many = subject.endswith("s") or subject == "children"
        assert verb.endswith("s") != many, line
    assert SyntheticTextDataModule(seed=1).vocab_size == SyntheticTextDataModule(seed=2).vocab_size
    with pytest.raises(ValueError, match="num_sentences is 0"):
        sentence_text(0)


def test_tiny_shakespeare(mirror):
    data = TinyShakespeareDataModule(length=100, batch_size=32)
    assert data.vocab_size == 66
    assert data.store.nbytes < 1.4e6
    assert next(data.batches()).ids.shape == (32, 101)
    assert sum(data.unknown_tokens.values()) == 0
    assert whole(data, "test").startswith("?\n\nGREMIO") or len(whole(data, "test")) == 55770


def test_wikitext(mirror):
    data = WikiText2SmallDataModule(length=50, batch_size=8)
    with pytest.warns(UserWarning, match="3700 of 21765 .*35670 of 245569 "):
        data.load()
    assert len(data.store.tokens) == 217_646 + 245_569
    assert data.vocabulary.tokens[:3] == ["<unk>", "the", ","]
    assert data.store.tokens.dtype == torch.int16


class TestVocabulary:
    def test_round_trip(self):
        vocabulary = Vocabulary(["a", "b", "\n"], "character")
        assert vocabulary.decode(vocabulary.encode("ab\nba").tolist()) == "ab\nba"
        words = Vocabulary(["a", "<unk>", "b", "<eos>"], "word")
        assert len(words) == 4
        assert words.decode(words.encode("a b\nc a").tolist()) == "a b\n<unk> a"
        assert words.unknown("a c d c") == ["c", "d"]
        assert Vocabulary.from_state_dict(words.state_dict()) == words

    def test_refused(self):
        with pytest.raises(DataError, match="repeat"):
            Vocabulary(["a", "a"], "character")
        with pytest.raises(DataError, match="'ab'"):
            Vocabulary(["ab"], "character")
        with pytest.raises(ValueError, match="unit is 'byte'"):
            Vocabulary(["a"], "byte")


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le"])
def test_utf_16_is_refused(encoding, tmp_path):
    with pytest.raises(DataError, match="iconv -f utf-16"):
        CharacterDataModule(write(tmp_path, TEXT.encode(encoding)), length=4).load()


def test_gzip_is_known_by_its_content(tmp_path):
    data = CharacterDataModule(write(tmp_path, gzip.compress(TEXT.encode() * 5)), length=4)
    assert data.vocabulary.tokens == ["<unk>", "a", "b", "c"]


def test_no_token_is_left(tmp_path):
    with pytest.raises(DataError, match=r"min_count is 99, .* occurs \d+ times"):
        CharacterDataModule(write(tmp_path, TEXT * 5), length=4, min_count=99).load()


def test_numbers_outside_a_vocabulary_have_no_text():
    vocabulary = Vocabulary([chr(97 + n) for n in range(26)], "character")
    assert vocabulary.decode(torch.tensor([1, 26])) == "az"
    for number in (-1, 27, -100):
        with pytest.raises(DataError, match=f"hold {number}; .* 0 to 26"):
            vocabulary.decode([1, number])
