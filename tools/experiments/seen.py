"""data/scenes_seen.npz: trained eyes, what they see of 16,000 pictures, and 32,000 questions.

    python -m tools.experiments.seen [--into FOLDER]        half a minute on one core

Drawing the pictures and training the eyes takes longer than a lesson has time for, so lesson 10
and its side lessons read them from this file (helpers.answering.load). Another kind of processor
rounds otherwise and makes other eyes, as good as these.
"""

import argparse
from pathlib import Path

import numpy as np

from helpers import answering, eyes, scenes

from ..bench import common

PICTURES, QUESTIONS = 16_000, 32_000


def arrays(pictures: int = PICTURES, questions: int = QUESTIONS) -> dict[str, np.ndarray]:
    """The file's arrays: the eyes' weights, float16 slots, and the questions as small numbers.

    `words` (questions, longest) holds places in scenes.vocabulary("trained") counted from 1, and 0
    behind the last word; `answer` and `kind` are places in scenes.ANSWERS and scenes.KINDS.
    """
    drawn = scenes.sample(pictures, seed=0)
    images = scenes.pictures(drawn, seed=0)
    trained = eyes.train_eyes(images, drawn)
    asked = scenes.ask(drawn, questions, seed=0)
    number = {word: n for n, word in enumerate(scenes.vocabulary("trained"), start=1)}
    coded = answering.encode(asked, number)
    found = {f"eyes {name}": w.numpy() for name, w in trained.state_dict().items()}
    found["slots"] = trained.look(images).half().numpy()
    found["scene"] = coded.scene.numpy().astype(np.uint16)
    found["words"] = coded.ids.numpy().astype(np.uint8)
    found["answer"] = coded.answer.numpy().astype(np.uint8)
    found["kind"] = np.array([scenes.KINDS.index(q.kind) for q in asked], dtype=np.uint8)
    return found


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tools.experiments.seen", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    parser.add_argument("--into", type=Path, default=answering.DATA)
    path = parser.parse_args(arguments).into / answering.NAME
    with common.threads(1):
        np.savez_compressed(path, **arrays())
    print(f"Written to {path}: {path.stat().st_size:,} bytes.")


if __name__ == "__main__":
    main()
