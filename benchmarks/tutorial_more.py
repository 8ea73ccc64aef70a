"""What the tutorials' own code reaches on speech, recommendation and the rest of the second tier: plain loops, written anew in a few lines.

    FULLRANK_DATA=../shared/data python benchmarks/tutorial_more.py speech_ctc [--epochs 15]

One process, one thread; prints the score of the last weights and the seconds of training.
"""

from __future__ import annotations

import argparse
import csv
import os
import random
import subprocess
import sys
import tempfile
import time
import wave
from collections.abc import Callable
from itertools import groupby, pairwise
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

DIGITS = "zero one two three four five six seven eight nine".split()


def main() -> None:
    """Runs one of METHODS and prints what it reached."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("method", choices=METHODS)
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    data = Path(os.environ.get("FULLRANK_DATA", ""))
    if not (data / "README.md").is_file():
        sys.exit("FULLRANK_DATA does not name the folder of the data sets: nothing was measured")
    torch.manual_seed(options.seed)
    random.seed(options.seed)
    torch.set_num_threads(1)
    started = time.perf_counter()
    print(f"{options.method}: {METHODS[options.method](data, options.epochs)}; {time.perf_counter() - started:.0f} s")


def speech_ctc(data: Path, epochs: int) -> str:
    """Log spectrograms, a convolution and a GRU that run over the padding too, Adam at a constant rate, no augmentation."""
    letters = sorted(set("".join(DIGITS)))
    splits: dict[bool, list[tuple[Tensor, str]]] = {True: [], False: []}
    for path in sorted((data / "fsdd" / "recordings").glob("*.wav")):
        digit, _, index = path.stem.split("_")
        if not 5 <= int(index) <= 9:  # fullrank's validation split
            with wave.open(str(path)) as file:
                samples = np.frombuffer(file.readframes(file.getnframes()), np.int16)
            spectrum = torch.stft(torch.from_numpy(samples / 2**15).float(), 200, 80, window=torch.hann_window(200), return_complex=True)
            splits[int(index) <= 4].append(((spectrum.abs() + 1e-6).log().T, DIGITS[int(digit)]))
    network = _Recogniser(splits[False][0][0].shape[1], len(letters) + 1)
    optimizer = torch.optim.Adam(network.parameters(), 1e-3)
    loss_of = nn.CTCLoss()
    for _ in range(epochs):
        random.shuffle(splits[False])
        for start in range(0, len(splits[False]), 32):
            frames, texts = zip(*splits[False][start : start + 32], strict=True)
            scores = network(nn.utils.rnn.pad_sequence(list(frames), batch_first=True)).log_softmax(-1).transpose(0, 1)
            targets = torch.tensor([letters.index(letter) + 1 for text in texts for letter in text])
            sizes = torch.tensor([len(one) for one in frames]), torch.tensor([len(text) for text in texts])
            optimizer.zero_grad()
            loss_of(scores, targets, *sizes).backward()
            optimizer.step()
    network.eval()
    with torch.inference_mode():
        paths = [network(frames[None])[0].argmax(-1).tolist() for frames, _ in splits[True]]
    heard = ["".join(letters[number - 1] for number, _ in groupby(path) if number) for path in paths]
    wrong = sum(word != said for word, (_, said) in zip(heard, splits[True], strict=True))
    return f"word error rate {wrong / len(heard):.4f} on {len(heard)} recordings, {len(splits[False])} learned from"


def recommender_autoencoder(data: Path, epochs: int) -> str:
    """The stacked autoencoder of the tutorials: four sigmoid layers that learn stars by squared error, one person at a time, RMSprop.

    On the ratings of examples/ratings/make_ratings.py; the last tenth of the people is not trained on.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "ratings.csv"
        subprocess.run([sys.executable, Path(__file__).parents[1] / "examples/ratings/make_ratings.py", path], check=True)
        with path.open(encoding="utf-8", newline="") as file:
            rows = [(row["user"], row["item"], float(row["rating"])) for row in csv.DictReader(file)]
    items = {name: number for number, name in enumerate(sorted({item for _, item, _ in rows}))}
    people: dict[str, dict[int, float]] = {}
    for user, item, stars in rows:
        people.setdefault(user, {})[items[item]] = stars
    matrix = torch.zeros(len(people), len(items))
    for row, ratings in enumerate(people.values()):
        matrix[row, list(ratings)] = torch.tensor(list(ratings.values()))
    train, test = matrix[: int(0.9 * len(matrix))], matrix[int(0.9 * len(matrix)) :]
    sizes = [len(items), 20, 10, 20, len(items)]
    layers = [layer for first, second in pairwise(sizes) for layer in (nn.Linear(first, second), nn.Sigmoid())]
    network = nn.Sequential(*layers[:-1])
    optimizer = torch.optim.RMSprop(network.parameters(), lr=0.01, weight_decay=0.5)
    for _ in range(epochs):
        for person in train:
            optimizer.zero_grad()
            (functional.mse_loss(network(person) * (person > 0), person, reduction="sum") / (person > 0).sum()).backward()
            optimizer.step()
    recalls = {"the network": [], "popularity": []}
    popularity = (train >= 4).sum(dim=0)
    with torch.inference_mode():
        for person in test:
            liked = [number for number in range(len(items)) if person[number] >= 4]
            held_out = set(random.sample(liked, max(1, round(0.2 * len(liked)))))
            seen = person.clone()
            seen[list(held_out)] = 0
            for name, scores in {"the network": network(seen), "popularity": popularity.float()}.items():
                best = scores.masked_fill(torch.tensor([n in set(liked) - held_out for n in range(len(items))]), -torch.inf).topk(20).indices
                recalls[name].append(len(held_out & set(best.tolist())) / min(20, len(held_out)))
    return ", ".join(f"recall@20 of {name} {sum(values) / len(values):.4f}" for name, values in recalls.items())


def seq2seq(data: Path, epochs: int) -> str:
    """The library's own T5 and loss, every text padded to the longest allowed, AdamW at a constant rate; on examples/numbers."""
    from transformers import AutoTokenizer, T5Config, T5ForConditionalGeneration

    root = Path(__file__).parents[1]
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([sys.executable, root / "examples/numbers/make_numbers.py", folder], check=True)
        rows = {name: list(csv.DictReader((Path(folder) / f"{name}.tsv").open(), delimiter="\t")) for name in ("train", "test")}
        tokenizer = AutoTokenizer.from_pretrained(Path(folder) / "tokenizer")
    config = T5Config(vocab_size=len(tokenizer), d_model=64, d_kv=16, d_ff=256, num_layers=2, num_heads=4, dropout_rate=0.0)
    config.update({"decoder_start_token_id": 0, "eos_token_id": tokenizer.sep_token_id, "pad_token_id": 0})
    network = T5ForConditionalGeneration(config)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3)

    def encoded(texts: list[str], length: int) -> dict[str, Tensor]:
        return dict(tokenizer(texts, padding="max_length", truncation=True, max_length=length, return_tensors="pt", return_token_type_ids=False))

    for _ in range(epochs):
        random.shuffle(rows["train"])
        for start in range(0, len(rows["train"]), 32):
            part = rows["train"][start : start + 32]
            labels = encoded([row["digits"] for row in part], 8)["input_ids"]
            optimizer.zero_grad()
            network(**encoded([row["words"] for row in part], 32), labels=labels.masked_fill(labels == 0, -100)).loss.backward()
            optimizer.step()
    network.eval()
    written = []
    for start in range(0, len(rows["test"]), 100):
        tokens = network.generate(**encoded([row["words"] for row in rows["test"][start : start + 100]], 32), max_new_tokens=8)
        written += tokenizer.batch_decode(tokens, skip_special_tokens=True)
    right = sum(text.split() == row["digits"].split() for text, row in zip(written, rows["test"], strict=True))
    return f"exact match {right / len(written):.4f} on {len(written)} numbers, {len(rows['train'])} learned from"


class _Recogniser(nn.Module):
    def __init__(self, num_features: int, num_letters: int) -> None:
        super().__init__()
        self.convolution = nn.Conv1d(num_features, 128, 5, padding=2)
        self.recurrent = nn.GRU(128, 128, batch_first=True, bidirectional=True)
        self.head = nn.Linear(256, num_letters)

    def forward(self, frames: Tensor) -> Tensor:
        return self.head(self.recurrent(functional.relu(self.convolution(frames.mT)).mT)[0])


METHODS: dict[str, Callable[[Path, int], str]] = {"speech_ctc": speech_ctc, "recommender_autoencoder": recommender_autoencoder, "seq2seq": seq2seq}

if __name__ == "__main__":
    main()
