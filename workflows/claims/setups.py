"""The comparisons that measure the claims: full, on the paper's own data and network, and small, for two cores.

All small ones together take about seven hours of two cores, with `--jobs 2`: each trains in one process, so that two
fit. They share their first arm where they can: a training is known by its configuration, and happens once.
"""

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from workflows import recipes
from workflows.claims.claim import Setup
from workflows.config import values

Arms = Mapping[str, Mapping[str, str]]

IMAGES_2010, IMAGES_2012, IMAGES_FALL_2009, IMAGES_CIFAR10 = 1_261_406, 1_281_167, 4_450_000, 50_000
TESTED_2010, TESTED_2012, TESTED_CIFAR10 = 150_000, 50_000, 10_000
IMAGES_TINY, TESTED_TINY = 12_000, 2_000  # of the subset with 60 training images of each of its 200 classes
FULL_PER_S = {"two cores": 46, "2 x GTX 580": 240}  # measured here; 90 epochs of 2010 in five to six days
SMALL_PER_S = {"two cores": 1800}  # recipe cifar10, two trainings at once
LOCAL_PER_S = {"two cores": 1000}  # the networks of recipes_cifar10.py
BASELINES_PER_S = {"fisher": 150, "sparse": 60}  # about, of 32 px and ten classes: a guess from a few images' time
BASELINES_PER_S_200 = {"fisher": 25, "sparse": 25}  # of 200 classes, whose classifiers take most of it

PART, FEW = 20_000, 5_000
SMALL = {
    "ingest.limit": str(PART),
    "train.epochs": "8",
    "train.lr": "0.01",  # that of the schedule holds
    "train.schedule": "1:*=.002 7:*=.0002",
    "train.placement": "one",
}
REDUCED = "CIFAR-10, 20,000 training images; two columns of 12 to 36 kernels, fc 512; 8 epochs"


def arm_of(base: str, other: str) -> dict[str, str]:
    """What turns one recipe into another."""
    first, second = (values(recipes.named(name)) for name in (base, other))
    return {key: _text(value) for key, value in second.items() if key != "recipe" and first.get(key) != value}


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def on_2010(arms: Arms, seeds: int = 3) -> Setup:
    """Table 1's network, tested as there."""
    return Setup("as_run", arms, IMAGES_2010, TESTED_2010, FULL_PER_S, {"evaluate.split": "test"}, seeds)


def on_2012(arms: Arms, seeds: int = 3) -> Setup:
    """Table 2's network, on the validation images."""
    return Setup("as_run_2012", arms, IMAGES_2012, TESTED_2012, FULL_PER_S, seeds=seeds)


def small(arms: Arms, seeds: int = 3, but: str = "", **settings: str) -> Setup:
    """Arms over the small two-column network on a part of CIFAR-10; `train__epochs="9"` sets train.epochs."""
    given = {name.replace("__", "."): value for name, value in settings.items()}
    images = int(given.get("ingest.limit", PART))
    return Setup(
        "cifar10",
        arms,
        images,
        min(images, TESTED_CIFAR10),
        SMALL_PER_S,
        SMALL | given,
        seeds,
        REDUCED + (f", but {but}" if but else ""),
    )


def turned(setup: Setup, *measures: str) -> Setup:
    """With the arms the other way round, so that differences are against the last; perhaps for other measures."""
    return replace(setup, arms=dict(reversed(list(setup.arms.items()))), measures=measures)


ONE_ARM: Arms = {"as it is": {}}

TABLE_1 = on_2010(ONE_ARM, seeds=1)
TABLE_2 = on_2012(ONE_ARM, seeds=1)
FINETUNED = Setup("finetune_2012", ONE_ARM, IMAGES_2012, TESTED_2012, FULL_PER_S, seeds=1)
FALL_2009 = Setup("fall_2009", ONE_ARM, IMAGES_FALL_2009, IMAGES_FALL_2009, FULL_PER_S, seeds=1)

VAL_AND_TEST = on_2010({"validation images": {"evaluate.split": "val"}, "test images": {}})

TWO_COLUMNS = on_2010({"two columns": {}, "one, half the kernels": arm_of("as_run", "one_gpu")})
ONE_COLUMN = {"net.columns": "1"}
TWO_COLUMNS_SMALL = small(
    {
        "two columns": {},
        "one, half the kernels": ONE_COLUMN | {"net.kernels": "[12,24,36,36,48]"},
        "one, as many parameters": ONE_COLUMN | {"net.kernels": "[22,38,54,54,48]"},
    }
)

LRN = on_2012({"normalisation": {}, "none": arm_of("as_run_2012", "no_normalisation")})
LRN_SMALL = small({"normalisation": {}, "none": {"net.normalisation": "false"}})

_PUBLISHED = "1:*=.001 *.bias=.002 501:*=.0001 511:*=.00001"  # all images throughout: which epochs it had is known
WITHOUT_MAPS: Arms = {"normalisation": {}, "none": {"net.normalisation": "none"}}
LRN_CIFAR10 = Setup(
    "cifar10_11pct_short",
    WITHOUT_MAPS,
    IMAGES_CIFAR10,
    TESTED_CIFAR10,
    LOCAL_PER_S,
    {"train.epochs": "520", "train.schedule": _PUBLISHED},
)
LRN_CIFAR10_SMALL = Setup(
    "cifar10_11pct_short",
    WITHOUT_MAPS,
    PART,
    TESTED_CIFAR10,
    LOCAL_PER_S,
    {
        "ingest.limit": str(PART),
        "train.epochs": "16",
        "train.schedule": "1:*=.001 *.bias=.002 13:*=.0001 15:*=.00001",
    },
    reduced="20,000 training images, 16 epochs of 520; the network is the 11 % one",
)

POOLING = on_2012({"overlapping": {}, "separate": arm_of("as_run_2012", "separate_pooling")})
POOLING_SMALL = small(
    {"overlapping": {}, "separate": {"net.pooling": "separate"}},
    but="crops of 30 px, so that fc6 reads maps of 3 x 3 in both arms",
    net__input_px="30",
)

TANH = on_2010({"ReLU": {}, "tanh": {"net.activation": "tanh", "net.conv1_std": "0.001"}})
TANH_SMALL = small(TANH.arms)

LIGHTING = on_2010({"lighting": {}, "none": {"loader.lighting": "off"}})
LIGHTING_SMALL = small(LIGHTING.arms)

CENTRE = {"loader.offsets": "1", "loader.flip": "false"}
CROPS = on_2010({"crops and flips": {}, "centre alone": CENTRE})
CROPS_SMALL = small(CROPS.arms)

WITHOUT_DROPOUT: Arms = {"dropout": {"net.dropout": "true"}, "none": {"net.dropout": "false"}}
DROPOUT = on_2010(WITHOUT_DROPOUT)
DROPOUT_SMALL = small(
    WITHOUT_DROPOUT,
    but="fc 1,024 units wide, 5,000 training images and 30 epochs, so that it overfits",
    ingest__limit=str(FEW),
    net__fc="[1024,1024]",
    train__epochs="30",
    train__schedule="1:*=.002",
)

DECAY = on_2010({"decay": {}, "none": {"train.weight_decay": "0"}})
DECAY_SMALL = small(DECAY.arms)

REMOVED = {
    "all": {},
    "without conv4": {"net.removed": "conv4"},
    "without conv3": {"net.removed": "conv3"},
    "without conv5": {"net.removed": "conv5"},
}
MIDDLE = on_2010(REMOVED)
MIDDLE_SMALL = small(REMOVED)

# Each the soonest at 25 % of .0003, .001, .002, .004 and (tanh) .008, small scale, one seed; at full scale the same.
RELU_SCHEDULE = "1:*=.001 *.bias=.002"
TANH_SCHEDULE = "1:*=.004 *.bias=.008"
FIGURE_1 = Setup(
    "figure_1",
    {
        "ReLU": {"train.schedule": RELU_SCHEDULE},
        "tanh": {"net.activation": "tanh", "train.schedule": TANH_SCHEDULE},
    },
    IMAGES_CIFAR10,
    TESTED_CIFAR10,
    LOCAL_PER_S,
    {"train.epochs": "60"},
)
FIGURE_1_SMALL = Setup(
    "figure_1",
    {
        "ReLU": {**FIGURE_1.arms["ReLU"], "train.epochs": "12"},
        "tanh": {**FIGURE_1.arms["tanh"], "train.epochs": "40"},
    },
    PART,
    TESTED_CIFAR10,
    {"two cores": 2000},
    {
        "ingest.limit": str(PART),
        "net.kernels": "[32,32]",
        "net.local_kernels": "[16,16]",
        "train.batch_size": "32",
    },
    reduced="20,000 training images of CIFAR-10, half of the four-layer network's kernels, batches of 32",
)

COMMUNICATION = on_2012({"columns exchange": {}, "at fc8 only": arm_of("as_run_2012", "no_communication")})
APART = {"net.communication": "false", "net.kernels": "[24,60,72,72,48]", "net.fc": "[1024,512]"}
COMMUNICATION_SMALL = small({"columns exchange": {}, "at fc8 only": APART})

FIVE = on_2012({"as it is": {"evaluate.keep_probabilities": "true"}}, seeds=5)
FIVE_SMALL = small({"two columns": {"evaluate.keep_probabilities": "true"}}, seeds=5)

SEARCHED = ("neighbours", "codes")
FEATURES = replace(TABLE_2, seeds=3, also=SEARCHED)
FEATURES_SMALL = replace(small({"two columns": {}}), also=SEARCHED)

COLOUR = on_2010(ONE_ARM, seeds=5)
KERNELS_ALONE = {"evaluate.views": "one"}  # all that is looked at
COLOUR_SMALL = small(
    {
        "two columns": {},
        "at fc8 only": APART,
        "conv1 of 9 x 9 px": {"net.conv1_kernel": "9", "net.conv1_pad": "4"} | KERNELS_ALONE,
        "20 epochs": {"train.epochs": "20", "train.schedule": "1:*=.002 19:*=.0002"} | KERNELS_ALONE,
    },
    seeds=5,
)

KEPT = {"evaluate__keep_probabilities": "true"}
SPARSE, FISHER = "Sparse coding", "SIFT + FVs"
ONE_CNN, FIVE_CNNS, PRETRAINED, SEVEN_CNNS = "1 CNN", "5 CNNs", "1 CNN*", "7 CNNs*"


def tables(pretrained_by: str) -> Setup:
    """The rows of Tables 1 and 2 on CIFAR-10: a network, baselines, and the network fine-tuned from what a recipe made.

    The plain network is that of the other small claims. Unlike the paper's two, the seven's pre-trained ones are two
    fine-tunings of one pre-training.
    """
    arms = {
        ONE_CNN: {},
        PRETRAINED: {"train.init_from": f"{pretrained_by}@newest"},
        FISHER: {"baseline": "fisher"},
        SPARSE: {"baseline": "sparse"},
    }
    averages = {FIVE_CNNS: {ONE_CNN: 5}, SEVEN_CNNS: {ONE_CNN: 5, PRETRAINED: 2}}
    made = small(arms, 5, **KEPT)
    return replace(made, baselines_per_s=BASELINES_PER_S, averages=averages)


TABLES_CIFAR10 = replace(
    tables("pretrain_tiny"), reduced=f"{REDUCED}; * pre-trained on Tiny ImageNet (recipe pretrain_tiny)"
)
TABLES_TINY = replace(
    tables("pretrain_cifar10"),
    baselines_per_s=BASELINES_PER_S_200,
    images=IMAGES_TINY,
    tested=TESTED_TINY,
    reduced="Tiny ImageNet at 32 px, 60 training images of each of 200 classes; the small claims' network, 8 epochs; "
    "* pre-trained on CIFAR-10 (recipe pretrain_cifar10)",
)
