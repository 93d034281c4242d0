"""Images per second of patchknn's training loop beside a bare loop of timm and cross-entropy."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

import timm
import torch
from cases_losses import BITS, CLASSES, Workload
from torch import Tensor, nn

from patchknn.encoder.backbones import Backbone, create_backbone
from patchknn.encoder.inference import normalise
from patchknn.encoder.network import EncoderNetwork
from patchknn.training.context import Context
from patchknn.training.defaults import resolve
from patchknn.training.descent import Position
from patchknn.training.fine_tuning import FineTuning
from patchknn.training.inputs import ImageInputs
from patchknn.training.ranks import join_ranks
from patchknn.training.settings import TrainingSettings
from patchknn.training.tasks import Task

OURS, BARE = "patchknn, multitask", "timm, cross-entropy"


class Pictures:
    """Random images in memory, handed out as a loaded ``ImageStore`` does."""

    def __init__(self, count: int, pixels: int) -> None:
        self._images = torch.randint(0, 256, (count, 3, pixels, pixels), dtype=torch.uint8)

    @property
    def unreadable(self) -> dict[int, str]:
        """None of them."""
        return {}

    def batches(self, lists: Iterable[Sequence[int]]) -> Iterator[tuple[Tensor, Tensor]]:
        """Lists of numbers → images (B, 3, S, S) uint8 and numbers (B,)."""
        for numbers in lists:
            indices = torch.tensor(numbers)
            yield self._images[indices], indices


def rates(work: Workload) -> None:
    """The same images, batch and precision for both; ours adds hash layer, augmentation, loss."""
    given = TrainingSettings(
        "resnet18",
        size=work.pixels,
        bits=BITS,
        classes_per_batch=CLASSES,
        per_class=work.per_class,
        epochs=10_000,
    )
    settings = resolve(given, [CLASSES], 100)
    count = CLASSES * work.per_class * work.batches
    labels = torch.arange(count) % CLASSES
    backbone = create_backbone("resnet18", input_size=work.pixels)
    network = EncoderNetwork(backbone.module, backbone.feature_dim, BITS, (CLASSES,))
    precision = "bfloat16" if work.device.type == "cuda" else "float32"
    pictures = Pictures(count, work.pixels)
    context = Context(
        network=network.to(work.device),
        inputs=ImageInputs(
            pictures,  # type: ignore[arg-type]
            work.pixels,
            settings.augment,
            backbone.mean,
            backbone.std,
        ),
        labels=labels.numpy(),
        n_train=count,
        tasks=(Task("label", tuple(map(str, range(CLASSES)))),),
        settings=settings,
        device=work.device,
        precision=precision,
        ranks=join_ranks(work.device, precision),
        report=lambda _: None,
        progress=lambda items, **_: iter(items),
        check=lambda: None,
    )
    tuning = FineTuning(context)

    def ours() -> None:
        # The last steps of an epoch, one loop over all batches but the first.
        tuning.descent.position = Position(epoch=1, step=1)
        tuning.run_epoch()

    steps = tuning.descent.batches - 1
    runs = {OURS: ours, BARE: _bare(work, context, pictures, backbone, steps)}
    work.measure("images a second", runs, steps * CLASSES * work.per_class, BITS)


def _bare(
    work: Workload, context: Context, pictures: Pictures, backbone: Backbone, steps: int
) -> Callable[[], None]:
    model = timm.create_model("resnet18", num_classes=CLASSES)
    model = model.to(work.device, memory_format=torch.channels_last).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    size = CLASSES * work.per_class
    lists = [range(step * size, (step + 1) * size) for step in range(steps)]
    labels = torch.from_numpy(context.labels)
    mixed = context.precision == "bfloat16"

    def run() -> None:
        for images, indices in pictures.batches(lists):
            inputs = normalise(images.to(work.device), backbone.mean, backbone.std)
            inputs = inputs.contiguous(memory_format=torch.channels_last)
            with torch.autocast(work.device.type, torch.bfloat16, enabled=mixed):
                logits = model(inputs)
            loss = nn.functional.cross_entropy(logits.float(), labels[indices].to(work.device))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    return run
