"""What the losses cost: as a share of a training step, and beside pytorch-metric-learning."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from report import Log, Setting
from timing import Budget, Contender, take_turns
from torch import Tensor, nn

from patchknn.encoder.backbones import create_backbone
from patchknn.encoder.network import EncoderNetwork
from patchknn.losses.cross_entropy import cross_entropy
from patchknn.losses.deep_knn import deep_knn
from patchknn.losses.multitask import multitask
from patchknn.losses.triplet import triplet

BITS, DIM, CLASSES = 48, 512, 9
MARGIN, ALPHA = 0.2, 0.5
STEP = "ResNet-18 step"
PEER = "pytorch-metric-learning"
# pytorch-metric-learning takes its distances by matrix product; ours are direct differences.
TOLERANCE = 1e-5


@dataclass(frozen=True)
class Workload:
    """Where to note, where to run, how long; size and number of the training step's batches."""

    log: Log
    device: torch.device
    budget: Budget
    pixels: int = 224
    per_class: int = 10
    batches: int = 24

    @property
    def labels(self) -> Tensor:
        """9 classes of so many images each."""
        return torch.arange(CLASSES, device=self.device).repeat_interleave(self.per_class)

    def measure(self, case: str, runs: dict[str, Callable[[], object]], n: int, bits: int) -> None:
        """Let what is to be compared take turns; all is done when the device has done it."""

        def repeated(run: Callable[[], object]) -> Callable[[int], None]:
            def several(count: int) -> None:
                for _ in range(count):
                    run()
                if self.device.type == "cuda":
                    torch.cuda.synchronize(self.device)

            return several

        contenders = [
            Contender(method, repeated(run), recall=None, at_least=1)
            for method, run in runs.items()
        ]
        setting = Setting(case, n, bits, None, self.device.type)
        self.log.add(setting, take_turns(contenders, 1000, self.budget))


def shares(work: Workload) -> None:
    """Each loss with its mining beside a whole step of the network that it trains."""
    labels = work.labels
    features, hash_vectors, logits = (
        clustered(labels, width) for width in (DIM, BITS, len(set(labels.tolist())))
    )
    runs = {
        "multitask": lambda: multitask(hash_vectors, logits, labels).total,
        "deep-knn": lambda: deep_knn(features, labels, alpha=ALPHA).total,
        **{
            mining: lambda mining=mining: triplet(features, labels, mining=mining).total
            for mining in ("batch-hard", "semi-hard", "easy-positive", "all")
        },
    }
    differentiated = {name: backwards(loss) for name, loss in runs.items()}
    work.measure("step share", {STEP: training_step(work), **differentiated}, len(labels), BITS)


def peers(work: Workload) -> None:
    """The losses, forwards and backwards, beside the same mining of pytorch-metric-learning."""
    from pytorch_metric_learning.distances import LpDistance
    from pytorch_metric_learning.losses import TripletMarginLoss
    from pytorch_metric_learning.miners import (
        BatchHardMiner,
        MultiSimilarityMiner,
        TripletMarginMiner,
    )

    labels = work.labels
    features = clustered(labels, DIM)
    logits = clustered(labels, CLASSES)
    # Rows of length 1, and no second normalisation: its fastest way to the same answer.
    euclidean = LpDistance(normalize_embeddings=False)
    loss = TripletMarginLoss(MARGIN, distance=euclidean)
    miners = {
        "BatchHardMiner": BatchHardMiner(distance=euclidean),
        "TripletMarginMiner(semihard)": TripletMarginMiner(
            MARGIN, type_of_triplets="semihard", distance=euclidean
        ),
        "MultiSimilarityMiner": MultiSimilarityMiner(),
    }
    runs = {
        "patchknn batch-hard": lambda: _of_mining("batch-hard", features, labels),
        "patchknn semi-hard": lambda: _of_mining("semi-hard", features, labels),
        "patchknn deep-knn": lambda: deep_knn(features, labels, alpha=ALPHA).total,
        "patchknn multitask": lambda: multitask(features, logits, labels).total,
        **{
            f"{PEER} {name}": lambda miner=miner: loss(features, labels, miner(features, labels))
            for name, miner in miners.items()
        },
    }
    ours, theirs = (runs[f"{who}"]() for who in ("patchknn batch-hard", f"{PEER} BatchHardMiner"))
    if abs(ours.item() - theirs.item()) > TOLERANCE:
        message = f"batch-hard differs: {ours.item()} here, {theirs.item()} in {PEER}"
        raise SystemExit(message)
    timed = {name: backwards(run) for name, run in runs.items()}
    work.measure("peers", timed, len(labels), DIM)


def _of_mining(mining: str, features: Tensor, labels: Tensor) -> Tensor:
    return triplet(features, labels, mining=mining, margin=MARGIN, only_active=True).total


def clustered(labels: Tensor, width: int) -> Tensor:
    """Rows of length 1 that have begun to gather by class, and want a gradient."""
    generator = torch.Generator().manual_seed(width)
    centres = torch.randn(CLASSES, width, generator=generator)
    rows = 0.5 * centres[labels.cpu()] + torch.randn(len(labels), width, generator=generator)
    return nn.functional.normalize(rows, dim=1).to(labels.device).requires_grad_()


def backwards(loss: Callable[[], Tensor]) -> Callable[[], None]:
    """The loss and its gradient."""
    return lambda: loss().backward()


def training_step(work: Workload) -> Callable[[], None]:
    """Forward, backward and AdamW of a ResNet-18 with its heads, by cross-entropy alone."""
    torch.manual_seed(0)
    backbone = create_backbone("resnet18", input_size=work.pixels)
    network = EncoderNetwork(backbone.module, backbone.feature_dim, BITS, (CLASSES,))
    network = network.to(work.device, memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3)
    labels = work.labels
    images = torch.randn(len(labels), 3, work.pixels, work.pixels, device=work.device)
    images = images.contiguous(memory_format=torch.channels_last)
    mixed = work.device.type == "cuda"  # the default precision of training there

    def step() -> None:
        with torch.autocast(work.device.type, torch.bfloat16, enabled=mixed):
            logits = network(images).logits[0]
        optimizer.zero_grad()
        cross_entropy(logits, labels).backward()
        optimizer.step()

    return step
