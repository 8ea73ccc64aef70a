"""The picture tutorials' own methods, in plain PyTorch: what the numbers of docs/tasks.md stand beside.

FULLRANK_DATA=../shared/data python -m benchmarks.tutorial_images resnet_cifar --source CIFAR10 | image_folder_frozen | autoencoder | mnist

CIFAR10 holds train/CLASS/*.jpg and test/CLASS/*.jpg. Each is the tutorial's loop as a person types it: one process, no validation split,
a constant learning rate. Prints a line for each epoch and the accuracies; one thread.

- resnet_cifar: the given ResNet-20 fine-tuned with SGD, lr 1e-3, momentum 0.9, pictures as they are.
- image_folder_frozen: MobileNetV2 frozen, a new head, Adam lr 1e-3, mirrored at random: the whole network computes in every epoch.
- autoencoder: pre-trained on whole pictures (nothing hidden), then encoder and head on 540 labels; and the same net from scratch.
- mnist: pre-trained on the train split, fine-tuned on the test split, whose accuracy before and after is printed: the second is no test.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from launch.config.load import load_experiment
from trainers.architectures.autoencoder import ConvAutoencoder, EncoderClassifier
from trainers.architectures.small_cnn import SmallCnn
from trainers.images.idx import read_idx_file
from trainers.images.networks import build_network
from trainers.images.transforms import normalised

IMAGENET = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
DATA = Path(os.environ.get("FULLRANK_DATA", "../shared/data"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("method", choices=METHODS)
    parser.add_argument("--source", type=Path, help="folder of CIFAR-10's pictures")
    parser.add_argument("--limit", type=int, help="train on so many pictures only, drawn at random")
    parser.add_argument("--epochs", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    METHODS[options.method](options)


def resnet_cifar(options: argparse.Namespace) -> None:
    from torchvision.datasets import ImageFolder
    from torchvision.transforms import v2

    change = v2.Compose([v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(*IMAGENET)])
    train, test = (ImageFolder(str(options.source / split), change) for split in ("train", "test"))
    weights = DATA / "cifar_resnets" / "resnet20-12fca82f.th"
    model, _ = build_network(load_experiment("resnet_cifar", [f"model.weights={weights}"]).experiment.model, train.classes, 3, seed=0)
    chosen = torch.utils.data.Subset(train, torch.randperm(len(train))[: options.limit].tolist())
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9)
    batches = [torch.utils.data.DataLoader(part, batch_size=64, shuffle=part is chosen) for part in (chosen, test)]
    print(f"before: test accuracy {accuracy(model, batches[1]):.4f}", flush=True)
    train_epochs(model, optimizer, batches[0], options.epochs)
    print(f"after: test accuracy {accuracy(model, batches[1]):.4f}")


def image_folder_frozen(options: argparse.Namespace) -> None:
    from torchvision.datasets import ImageFolder
    from torchvision.transforms import v2

    cut = [v2.Resize(256), v2.CenterCrop(224), v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(*IMAGENET)]
    folder = str(DATA / "sign_digits" / "Dataset")
    changed, plain = ImageFolder(folder, v2.Compose([*cut, v2.RandomHorizontalFlip()])), ImageFolder(folder, v2.Compose(cut))
    order = torch.randperm(len(plain)).tolist()
    num_held_out = round(0.3 * len(order))
    model, _ = build_network(load_experiment("image_folder_frozen", []).experiment.model, plain.classes, 3, seed=0)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name.startswith("classifier"))
    train = torch.utils.data.DataLoader(torch.utils.data.Subset(changed, order[num_held_out:]), batch_size=32, shuffle=True)
    held_out = torch.utils.data.DataLoader(torch.utils.data.Subset(plain, order[:num_held_out]), batch_size=64)
    train_epochs(model, torch.optim.Adam(model.classifier.parameters(), lr=1e-3), train, options.epochs)
    print(f"held-out accuracy {accuracy(model, held_out):.4f}")


def autoencoder(options: argparse.Namespace) -> None:
    pixels, labels, test = *read_mnist("train"), batches_of(*read_mnist("t10k"), 256)
    model = ConvAutoencoder()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    for epoch in range(options.epochs):
        started, losses = time.perf_counter(), []
        for batch in torch.randperm(54_000).split(128):
            loss = functional.mse_loss(model(seen(pixels[batch])), pixels[batch].float() / 255)
            step(optimizer, loss)
            losses.append(float(loss))
        print(f"epoch {epoch + 1}: loss {np.mean(losses):.4f}, {time.perf_counter() - started:.1f} s", flush=True)
    for seed in range(3):
        few = torch.from_numpy(np.random.RandomState(seed).permutation(len(labels))[:540])
        for start in ("scratch", "pre-trained"):
            torch.manual_seed(seed)
            classifier = EncoderClassifier()
            if start == "pre-trained":
                classifier.encoder.load_state_dict(model.encoder.state_dict())
            optimizer = torch.optim.AdamW(classifier.parameters(), lr=1e-3)
            for _ in range(40):
                for batch in few[torch.randperm(len(few))].split(32):
                    step(optimizer, functional.cross_entropy(classifier(seen(pixels[batch])), labels[batch]))
            print(f"seed {seed}, {start}: test accuracy {accuracy(classifier, test):.4f}", flush=True)


def mnist(options: argparse.Namespace) -> None:
    (pixels, labels), (test_pixels, test_labels) = read_mnist("train"), read_mnist("t10k")
    chosen = torch.randperm(len(labels))[: options.limit]
    test, model = batches_of(test_pixels, test_labels, 64), SmallCnn()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    train_epochs(model, optimizer, batches_of(pixels[chosen], labels[chosen], 64), options.epochs)
    print(f"pre-trained on {len(chosen)} pictures of train: test accuracy {accuracy(model, test):.4f}", flush=True)
    train_epochs(model, torch.optim.Adam(model.parameters(), lr=1e-4), test, 1)
    print(f"fine-tuned on the test split itself: accuracy on it {accuracy(model, test):.4f}")


def train_epochs(model: nn.Module, optimizer: Any, batches: Iterable[Any], num_epochs: int) -> None:
    for epoch in range(num_epochs):
        model.train()
        started, losses = time.perf_counter(), []
        for inputs, labels in batches:
            loss = functional.cross_entropy(model(inputs), labels)
            step(optimizer, loss)
            losses.append(float(loss))
        print(f"epoch {epoch + 1}: loss {np.mean(losses):.4f}, {time.perf_counter() - started:.1f} s", flush=True)


def step(optimizer: Any, loss: Tensor) -> None:
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


@torch.inference_mode()
def accuracy(model: nn.Module, batches: Iterable[Any]) -> float:
    model.eval()
    right = [model(inputs).argmax(-1) == labels for inputs, labels in batches]
    return float(torch.cat(right).float().mean())


def read_mnist(split: str) -> tuple[Tensor, Tensor]:
    """Returns pixels, uint8 [N, 1, 28, 28], and labels, int64 [N]."""
    folder = DATA / "mnist"
    images = read_idx_file(folder / f"{split}-images-idx3-ubyte.gz", 3)
    return torch.from_numpy(images[:, None].copy()), torch.from_numpy(read_idx_file(folder / f"{split}-labels-idx1-ubyte.gz", 1).astype(np.int64))


def seen(pixels: Tensor) -> Tensor:
    return normalised(pixels, [0.5], [0.5])


def batches_of(pixels: Tensor, labels: Tensor, size: int) -> list[tuple[Tensor, Tensor]]:
    return list(zip(seen(pixels).split(size), labels.split(size), strict=True))


METHODS: dict[str, Callable[[argparse.Namespace], None]] = {
    "resnet_cifar": resnet_cifar,
    "image_folder_frozen": image_folder_frozen,
    "autoencoder": autoencoder,
    "mnist": mnist,
}

if __name__ == "__main__":
    main()
