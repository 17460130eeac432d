#!/usr/bin/env python3
"""An installed Moothall works wherever its folder is moved: the programs find each other, and nothing of the build
directory is needed; their manual pages come along.   install_test.py BUILD_DIR SOURCE_DIR"""
import json
import os
import shutil
import subprocess
import sys
import tempfile

BUILD, SOURCE = map(os.path.abspath, sys.argv[1:3])


def main():
    place = tempfile.mkdtemp(prefix="moothall-install-")
    try:
        first, moved = os.path.join(place, "first"), os.path.join(place, "moved")
        subprocess.run(["cmake", "--install", BUILD, "--prefix", first], check=True, stdout=subprocess.DEVNULL)
        os.rename(first, moved)
        programs = sorted(os.listdir(os.path.join(moved, "bin")))
        assert programs == ["moothall", "moothall-broker", "moothall-worker"], programs
        for name in programs:
            assert os.path.isfile(os.path.join(moved, "share/man/man1", name + ".1")), name
            assert os.path.isfile(os.path.join(moved, "share/bash-completion/completions", name)), name
            said = subprocess.run([os.path.join(moved, "bin", name), "--version"], check=True, capture_output=True, text=True).stdout
            assert name in said and any(c.isdigit() for c in said), said
            with open(os.path.join(moved, "bin", name), "rb") as file:
                linked = subprocess.run(["readelf", "-d", "/dev/stdin"], stdin=file, capture_output=True, text=True).stdout
            assert "RUNPATH" not in linked and "RPATH" not in linked, linked
        line = {"custom_id": "a", "method": "POST", "url": "/v1/completions", "body": {"prompt": "A moot", "max_tokens": 4}}
        with open(os.path.join(place, "in.jsonl"), "w", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        run = subprocess.run([os.path.join(moved, "bin", "moothall"), "run", "--model", os.path.join(SOURCE, "deploy/demo/model"), "--workers", "2",
                              "in.jsonl", "-o", "out.jsonl"], cwd=place, env={"PATH": "/usr/bin:/bin", "HOME": place}, capture_output=True, text=True,
                             timeout=120)
        assert run.returncode == 0, run.stderr
        with open(os.path.join(place, "out.jsonl"), encoding="utf-8") as file:
            results = [json.loads(text) for text in file]
        assert len(results) == 1 and results[0]["custom_id"] == "a", results
        assert len(results[0]["response"]["body"]["choices"][0]["token_ids"]) == 4, results
        print("installed, moved, and run from there")
    finally:
        shutil.rmtree(place)


if __name__ == "__main__":
    main()
