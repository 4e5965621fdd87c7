"""The catalogue: every named set, where its files come from, and how they are read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from netsuke.data import readers
from netsuke.data.dataset import Split
from netsuke.data.made import Maker, Part

Shape = tuple[int, int, int]


@dataclass(frozen=True)
class File:
    """One file of a set: its name, its size and check sum as published, its mirrors (none: put it there by hand)."""

    name: str
    size: int
    sha256: str
    urls: tuple[str, ...] = ()


@dataclass(frozen=True)
class Entry:
    """What the catalogue knows of a set without opening it."""

    title: str
    classes: tuple[str, ...]
    shape: Shape
    counts: dict[str, int]  # images in "train", "val" and "test" as the source has them
    files: dict[str, tuple[File, ...]]  # the same keys, but for what is made; no file: embedded in a library
    read: Callable[[Entry, str, Sequence[Path]], Split]
    licence: str
    role: str = "any"
    folders: tuple[str, ...] = ()  # further folder names to look in, beside the set's own
    maker: Maker | None = None  # who makes the halves that have no files


DIGITS = tuple("0123456789")
MNIST_MIRRORS = (
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
)
FASHION_MIRRORS = (
    "https://github.com/zalandoresearch/fashion-mnist/raw/master/data/fashion/",
    "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
)
KMNIST_MIRRORS = ("http://codh.rois.ac.jp/kmnist/dataset/kmnist/",)
USPS_MIRRORS = ("https://hastie.su.domains/ElemStatLearn/datasets/",)
UCI_MIRRORS = ("https://archive.ics.uci.edu/ml/machine-learning-databases/",)
EMNIST_MIRRORS = (
    "https://biometrics.nist.gov/cs_links/EMNIST/",
    "https://www.itl.nist.gov/iaui/vip/cs_links/EMNIST/",
)


def _file(name: str, size: int, sha256: str, mirrors: tuple[str, ...] = (), under: str = "") -> File:
    return File(name, size, sha256, tuple(mirror + under + name for mirror in mirrors))


# Sums of the files marked "published" are those of TensorFlow Datasets' list, not recomputed on the files
# themselves; all others were computed on the files. Of MNIST and Fashion-MNIST the official md5s held too.
_EMNIST_ZIP = _file(  # published
    "gzip.zip",
    561753746,
    "fb9bb67e33772a9cc0b895e4ecf36d2cf35be8b709693c3564cea2a019fcda8e",
    EMNIST_MIRRORS,
)

# MNIST's own.
_MNIST_TEST = (
    _file(
        "t10k-images-idx3-ubyte.gz",
        1648877,
        "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
        MNIST_MIRRORS,
    ),
    _file(
        "t10k-labels-idx1-ubyte.gz",
        4542,
        "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
        MNIST_MIRRORS,
    ),
)

# Further kinds of images are further parts here, and a line in `lab.handwriting.KINDS`.
_HANDWRITING = Maker(
    "netsuke.lab.handwriting",
    1,
    (*(Part("train", "signs", 1000 + i, 20_000) for i in range(14)), Part("val", "signs", 900_000, 15_000)),
)

CATALOGUE: dict[str, Entry] = {
    "digits": Entry(
        "handwritten digits of 13 writers, UCI optdigits test half, embedded in scikit-learn",
        DIGITS,
        (1, 8, 8),
        {"train": 1797},
        {"train": ()},
        readers.digits,
        "CC BY 4.0",
    ),
    "mnist": Entry(
        "MNIST handwritten digits",
        DIGITS,
        (1, 28, 28),
        {"train": 60000, "test": 10000},
        {
            "train": (
                _file(
                    "train-images-idx3-ubyte.gz",
                    9912422,
                    "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
                    MNIST_MIRRORS,
                ),
                _file(
                    "train-labels-idx1-ubyte.gz",
                    28881,
                    "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
                    MNIST_MIRRORS,
                ),
            ),
            "test": _MNIST_TEST,
        },
        readers.idx,
        "CC BY-SA 3.0",
    ),
    "handwriting": Entry(
        "digits and signs that are none, of pens, print and bitmaps, on any paper; made here; test: MNIST's",
        DIGITS,
        (1, 28, 28),
        {
            half: sum(part.count for part in _HANDWRITING.parts if part.half == half)
            for half in ("train", "val")
        }
        | {"test": 10000},
        {"test": _MNIST_TEST},
        readers.idx,
        "made from sets of CC BY 4.0, CC BY-SA 3.0 and MIT",
        folders=("mnist",),
        maker=_HANDWRITING,
    ),
    "fashion-mnist": Entry(
        "Fashion-MNIST, articles of clothing",
        (
            "T-shirt/top",
            "Trouser",
            "Pullover",
            "Dress",
            "Coat",
            "Sandal",
            "Shirt",
            "Sneaker",
            "Bag",
            "Ankle boot",
        ),
        (1, 28, 28),
        {"train": 60000, "test": 10000},
        {
            "train": (
                _file(
                    "train-images-idx3-ubyte.gz",
                    26421880,
                    "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
                    FASHION_MIRRORS,
                ),
                _file(
                    "train-labels-idx1-ubyte.gz",
                    29515,
                    "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
                    FASHION_MIRRORS,
                ),
            ),
            "test": (
                _file(
                    "t10k-images-idx3-ubyte.gz",
                    4422102,
                    "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
                    FASHION_MIRRORS,
                ),
                _file(
                    "t10k-labels-idx1-ubyte.gz",
                    5148,
                    "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
                    FASHION_MIRRORS,
                ),
            ),
        },
        readers.idx,
        "MIT",
    ),
    "kmnist": Entry(
        "Kuzushiji-MNIST, ten cursive Japanese characters",
        ("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo"),
        (1, 28, 28),
        {"train": 60000, "test": 10000},
        {
            "train": (
                _file(  # published
                    "train-images-idx3-ubyte.gz",
                    18165135,
                    "51467d22d8cc72929e2a028a0428f2086b092bb31cfb79c69cc0a90ce135fde4",
                    KMNIST_MIRRORS,
                ),
                _file(  # published
                    "train-labels-idx1-ubyte.gz",
                    29497,
                    "e38f9ebcd0f3ebcdec7fc8eabdcdaef93bb0df8ea12bee65224341c8183d8e17",
                    KMNIST_MIRRORS,
                ),
            ),
            "test": (
                _file(
                    "kmnist-test-imgs.npz",
                    3079479,
                    "692d824896bec8f3c357ebf7a0fe904ed67ac632ce953d0b58f7fbef7bb27d87",
                    KMNIST_MIRRORS,
                ),
                _file(
                    "kmnist-test-labels.npz",
                    5304,
                    "660f13a4705431ea2a6391c41ecbe384cd0d932c595a101ec4f3b8989e785046",
                    KMNIST_MIRRORS,
                ),
            ),
        },
        readers.kmnist,
        "CC BY-SA 4.0",
        folders=("kmnist-test",),
    ),
    "emnist-digits": Entry(
        "EMNIST digits, from NIST Special Database 19 (one zip of 562 MB holds every EMNIST set)",
        DIGITS,
        (1, 28, 28),
        {"train": 240000, "test": 40000},
        {"train": (_EMNIST_ZIP,), "test": (_EMNIST_ZIP,)},
        readers.emnist,
        "public domain (a work of NIST)",
        folders=("emnist",),
    ),
    "usps": Entry(
        "USPS zip-code digits, training half",
        DIGITS,
        (1, 16, 16),
        {"train": 7291},
        {
            "train": (
                _file(
                    "zip.train.gz",
                    1829071,
                    "66ebf231ab51f2cf6ac1a892d0f98ccffee1079d7a5db638c1f11f366046ca16",
                    USPS_MIRRORS,
                ),
            )
        },
        readers.usps,
        "none stated, research use",
        role="experiment",
    ),
    "optdigits": Entry(
        "UCI optical digits of 30 writers, training half",
        DIGITS,
        (1, 8, 8),
        {"train": 3823},
        {
            "train": (
                _file(
                    "optdigits.tra",
                    563639,
                    "e1b683cc211604fe8fd8c4417e6a69f31380e0c61d4af22e93cc21e9257ffedd",
                    UCI_MIRRORS,
                    "optdigits/",
                ),
            )
        },
        readers.optdigits,
        "CC BY 4.0",
    ),
    "semeion": Entry(
        "Semeion digits of about 80 Italian writers, black and white, stretched to the box",
        DIGITS,
        (1, 16, 16),
        {"train": 1593},
        {
            "train": (
                _file(
                    "semeion.data",
                    2889702,
                    "f43228ae3da5ea6a3c95069d53450b86166770e3b719dcc333182128fe08d4b1",
                    UCI_MIRRORS,
                    "semeion/",
                ),
            )
        },
        readers.semeion,
        "CC BY 4.0",
    ),
    "exam-digits": Entry(
        "NSYSU-digits: scores on student exams, thin, faint and off-centre",
        DIGITS,
        (1, 28, 28),
        {"test": 1890},
        {
            "test": (
                _file("data.npz", 223164, "aff54c7c6f067f82cd63392d4057637cb3641abddb51c7b1edce6efd50fa7b84"),
            )
        },
        readers.npz,
        "ODbL 1.0",
        role="validation",
    ),
    "screen-digits": Entry(
        "HwD-1000: digits that one person drew on a screen",
        DIGITS,
        (1, 28, 28),
        {"test": 1000},
        {
            "test": (
                _file("data.npz", 172330, "6a82cd23ab231eb20dea558e03bde7ba404eaba43ae041cca768c0f20ca36e4c"),
            )
        },
        readers.npz_dark_ink,
        "MIT",
        role="validation",
    ),
}
