"""A language model over the characters of a text of your own, and text from its checkpoint without the data."""

import functools
import tempfile
from pathlib import Path

import lightning
import torch

import graphseq
from graphseq.core import quiet_lightning
from graphseq.data import CharacterDataModule, sentence_text
from graphseq.models import RecurrentLanguageModel, generate_tokens
from graphseq.tasks import LanguageModeling

torch.set_num_threads(1)
quiet_lightning()
lightning.seed_everything(0, verbose=False)
with tempfile.TemporaryDirectory() as folder:
    text = Path(folder, "text.txt")  # put the path of your text here, or WordDataModule for one of words
    text.write_bytes(bytes(sentence_text(600).tolist()))
    data = CharacterDataModule(text, length=64, batch_size=16)
    task = LanguageModeling(
        RecurrentLanguageModel(data.vocab_size, embedding_channels=16, hidden_channels=64),
        num_outputs=data.vocab_size,
        optimizer=functools.partial(torch.optim.Adam, lr=1e-2),
    )
    options = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = lightning.Trainer(max_epochs=3, accelerator="cpu", enable_model_summary=False, **options)
    trainer.fit(task, data)
    trainer.test(task, data, verbose=False)
    share = torch.bincount(torch.tensor(list(text.read_bytes()))) / text.stat().st_size
    alone = float(torch.special.entr(share).sum().exp())  # what the letters' frequencies alone reach
    reached = float(trainer.callback_metrics["test/ppl"])
    print(f"perplexity of a character {reached:.2f}; baseline of letter frequencies {alone:.2f}")
    trainer.save_checkpoint(Path(folder, "characters.ckpt"))
    loaded = graphseq.load(Path(folder, "characters.ckpt")).eval()

vocabulary = loaded.vocabulary
prompt = vocabulary.encode("the old ")
generator = torch.Generator().manual_seed(0)
new = generate_tokens(loaded.model, prompt[None], 120, temperature=0.5, generator=generator)
print(vocabulary.decode([*prompt.tolist(), *new[0].tolist()]))
