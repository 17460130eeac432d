"""What the tests of `extract` and `summarize` share: documents, a model with little room, what a line must be."""

import glob
import json
import os
import random
import shutil
import subprocess

from run_hall import BUILD, MODEL, SOURCE, Place, check

DOCUMENTS = os.path.join(SOURCE, "deploy", "demo", "documents")
SCHEMA = os.path.join(SOURCE, "deploy", "demo", "changelog.schema.json")
ONE_LINE = "Summarize this package description in one line."


def demo(kind, count=None):
    """Texts of the shipped documents: `description` or `entry`."""
    names = sorted(glob.glob(os.path.join(DOCUMENTS, f"{kind}-*.txt")))[:count]
    texts = []
    for name in names:
        with open(name, encoding="utf-8") as file:
            texts.append(file.read())
    return texts


def write_documents(place, texts, prefix="d"):
    """Returns their names, in order."""
    os.makedirs(place.path("docs"), exist_ok=True)
    names = []
    for i, text in enumerate(texts):
        name = f"docs/{prefix}{i:04}.txt"
        with open(place.path(name), "wb") as file:
            file.write(text if isinstance(text, bytes) else text.encode())
        names.append(name)
    return names


def long_text(kind, parts, seed=1):
    draw = random.Random(seed)
    texts = demo(kind)
    return "\n\n".join(draw.choice(texts) for _ in range(parts))


def small_model(place, context):
    """The demo model with another context: what is tested is how the room is shared out, not what it says."""
    path = place.path(f"model-{context}")
    shutil.copytree(MODEL, path)
    with open(os.path.join(path, "config.json"), encoding="utf-8") as file:
        config = json.load(file)
    config["max_position_embeddings"] = context
    with open(os.path.join(path, "config.json"), "w", encoding="utf-8") as file:
        json.dump(config, file)
    return path


def every_entry(place, state):
    """Every result of a state directory's store, as `fetch` gives it."""
    done = place.call("fetch", "--state", state, "-o", "every.jsonl")
    check(done.code in (0, 2), done)
    found = place.results("every.jsonl")
    os.unlink(place.path("every.jsonl"))
    return found


def same_but_provenance(rows):
    return [json.dumps({k: v for k, v in row.items() if k != "moothall"}, sort_keys=True) for row in rows]


class Hall(Place):
    """A shared hall: a broker and one worker, ended with the place."""

    def __init__(self, name):
        super().__init__(name)
        self.started = []
        broker = self.program("moothall-broker", "--listen", "tcp://127.0.0.1:*", "--store", "hall.db", stdout=subprocess.PIPE)
        self.endpoint = broker.stdout.readline().decode().split()[-1]
        self.program("moothall-worker", "--broker", self.endpoint, "--model", MODEL, "--threads", "1", stdout=subprocess.DEVNULL)

    def program(self, name, *flags, stdout):
        process = subprocess.Popen([os.path.join(BUILD, name), *flags], cwd=self.dir, env=self.env, stdout=stdout, stderr=subprocess.DEVNULL)
        self.started.append(process)
        return process

    def close(self):
        for process in self.started:
            process.kill()
            process.wait()
        super().close()
