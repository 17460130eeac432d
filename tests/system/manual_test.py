#!/usr/bin/env python3
"""--help, the manual pages and bash's completion say the same, and all of it.   manual_test.py BUILD_DIR SOURCE_DIR"""
import os
import re
import shutil
import subprocess
import sys

BUILD = os.path.abspath(sys.argv[1])
MANUAL = os.path.join(BUILD, "manual")
PROGRAMS = ("moothall", "moothall-broker", "moothall-worker")


def said(*words):
    return subprocess.run([os.path.join(BUILD, words[0]), *words[1:]], check=True, capture_output=True, text=True).stdout


def page(name):
    with open(os.path.join(MANUAL, "man1", name + ".1"), encoding="utf-8") as file:
        return file.read()


def complete(program, *words):
    """What bash offers for the last of the words."""
    script = f'source "$1"; shift; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _{program.replace("-", "_")}; printf "%s\\n" "${{COMPREPLY[@]}}"'
    done = subprocess.run(["bash", "-uc", script, "bash", os.path.join(MANUAL, "completions", program), program, *words], check=False,
                          capture_output=True, text=True, cwd=BUILD)
    assert done.stderr == "", done.stderr
    return done.stdout.split()


def flags_of(text):
    return re.findall(r"^    (--[a-z][a-z-]*)", text, re.M)


def same(program, verb, text, flags, name):
    for flag in flags:
        assert f".B {flag}".replace("-", "\\-") in text, f"{name}: no {flag} in the manual page"
    shown = [flag.replace("\\-", "-") for flag in re.findall(r"^\.B (\\-\\-[^ \n]*)", text, re.M)]
    assert sorted(shown) == sorted(set(flags) | {"--help"}), f"{name}: the page has {shown}, --help {flags}"
    offered = complete(program, *([verb] if verb else []), "--")
    assert sorted(offered) == sorted(set(flags) | {"--help"} | (set() if verb else {"--version"})), f"{name}: offered {offered}"
    for flag in flags:
        assert flag in complete(program, *([verb] if verb else []), flag[:-1]), f"{name}: {flag[:-1]} does not lead to {flag}"


def main():
    verbs = re.findall(r"^    moothall ([a-z]+) ", said("moothall", "--help").split("Exit status")[0], re.M)
    verbs = [verb for verb in verbs if verb != "VERB"]
    assert len(verbs) >= 8 and len(verbs) == len(set(verbs)), verbs
    pages = sorted(os.listdir(os.path.join(MANUAL, "man1")))
    assert pages == sorted([f"moothall-{verb}.1" for verb in verbs] + [program + ".1" for program in PROGRAMS]), f"stale or missing: {pages}"
    whole = page("moothall")
    assert sorted(complete("moothall", "")) == sorted([*verbs, "--help", "--version"])
    for verb in verbs:
        assert f".B {verb}\n" in whole and f".BR moothall\\-{verb} (1)" in whole, f"moothall.1 does not name {verb}"
        text = said("moothall", verb, "--help")
        assert f"moothall {verb}" in text.split("Example:")[1], f"{verb}: no example"
        same("moothall", verb, page("moothall-" + verb), flags_of(text), verb)
    for program in PROGRAMS[1:]:
        text = said(program, "--help")
        flags = flags_of(text)
        assert len(flags) > 10 and "Example:" in text and "Exit status" in text, text
        same(program, None, page(program), flags, program)
        for flag in flags:
            assert f"In the file: {flag[2:].replace('-', '_')}.".replace("-", "\\-") in page(program), f"{program}: the key of {flag}"
    # Values: of a choice, also after `=` (which bash takes apart); directories for a model; nothing for a name.
    assert complete("moothall", "run", "--weights", "") == ["auto", "f32", "bf16", "q8", "q4"]
    assert complete("moothall", "run", "--weights", "=", "b") == ["bf16"] and "f32" in complete("moothall", "run", "--weights", "=")
    assert "manual" in complete("moothall", "run", "--model", "man") and complete("moothall", "run", "--queue", "") == []
    assert "manual" in complete("moothall", "run", "man") and complete("moothall-broker", "--log", "j") == ["json"]
    assert complete("moothall", "fetch", "-o", "moothall-b") == ["moothall-broker"]
    assert complete("moothall", "extract", "--temperature", "") == []
    for name in pages:  # --help breaks lines where its width ends, a page only where a sentence does
        for line in re.findall(r"^(.*)\n\.br$", page(name[:-2]), re.M):
            assert line[-1] in ".:;", f"{name} breaks after {line!r}"
    if shutil.which("groff"):
        for name in pages:
            done = subprocess.run(["groff", "-man", "-Tutf8", "-ww", os.path.join(MANUAL, "man1", name)], check=True, capture_output=True, text=True)
            assert done.stderr == "" and "SYNOPSIS" in re.sub(r"\x1b\[[0-9;]*m|.\x08", "", done.stdout), f"{name}: {done.stderr}"
    else:
        print("no groff here: the pages were not typeset")
    print(f"{len(pages)} pages, {len(verbs)} verbs")


if __name__ == "__main__":
    main()
