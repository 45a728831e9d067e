"""A CSV of daily values in; a picture, and a CSV of forecasts for the days after its end, out."""

import math
import random
from datetime import date, timedelta
from functools import partial

import torch
from lightning.pytorch import Trainer

from graphseq.callbacks import draw_forecasts
from graphseq.core import quiet_lightning
from graphseq.data import SeriesTableDataModule
from graphseq.models import NLinear, SeasonalNaive
from graphseq.tasks import ClosedFormForecasting, Forecasting

quiet_lightning()
torch.manual_seed(0)
random.seed(0)

# a table of your own takes the place of this one: visitors of two shops, busier at weekends and from month to month
with open("visitors.csv", "w") as file:
    file.write("day,north,south\n")
    for n in range(730):
        day = date(2023, 1, 1) + timedelta(n)
        north = 200 + 0.2 * n + 80 * (day.weekday() >= 5) + 30 * math.sin(n / 58) + random.gauss(0, 12)
        south = 120 + 0.1 * n + 50 * (day.weekday() >= 5) + random.gauss(0, 9)
        file.write(f"{day},{north:.1f},{south:.1f}\n")

data = SeriesTableDataModule("visitors.csv", time="day", window=28, horizon=14, season=7)
task = Forecasting(NLinear(data.window, data.horizon), optimizer=partial(torch.optim.Adam, lr=3e-3), steps=[1, 14])
quiet = {"accelerator": "cpu", "logger": False, "enable_progress_bar": False, "enable_model_summary": False}
trainer = Trainer(max_epochs=40, enable_checkpointing=False, **quiet)
trainer.fit(task, data)

found = trainer.test(task, data, verbose=False)[0]
usual = Trainer(**quiet).test(ClosedFormForecasting(SeasonalNaive(14, season=7)), data, verbose=False)[0]
print(f"error {found['test/mae']:.1f} visitors; baseline, the same day of last week: {usual['test/mae']:.1f}")
print(f"one day ahead {found['test/mae@1']:.1f}, two weeks ahead {found['test/mae@14']:.1f}")

table = task.predictions(data, "predict")  # the two weeks after the last row of the file
table.to_csv("forecasts.csv", index=False)
print(table.head(3).to_string(index=False))

batch = next(data.batches("predict"))
past, ahead = batch.restore(batch.x)[0, 0], task.predict_step(batch, 0)[0, 0].detach()
draw_forecasts(past, ahead, names=data.target_names).savefig("forecasts.png", dpi=110)
print("wrote forecasts.csv and forecasts.png")
