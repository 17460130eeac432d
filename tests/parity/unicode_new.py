#!/usr/bin/env python3
"""Asks the `tokenizers` library which general category those code points have that Unicode 14 did not
assign?  Prints the table `assigned` of worker/model/pretokenize_pattern.c,
or with --check says whether that file still has it.  Takes a minute; run by hand when the library changes.

Python's own unicodedata must be of Unicode 14 (Python 3.11): it stands for PCRE2 10.42.
"""
import re
import sys
import unicodedata

from tokenizers import Regex, pre_tokenizers

CATEGORIES = "Lu Ll Lt Lm Lo Mn Mc Me Nd Nl No Pc Pd Ps Pe Pi Pf Po Sm Sc Sk So Zs Zl Zp".split()


def members(step):
    """Code points that the step isolates from a control character on each side."""
    return {c for c in range(0x110000) if not 0xD800 <= c <= 0xDFFF and
            len(step.pre_tokenize_str("\x01" + chr(c) + "\x01")) == 3}


def main():
    if unicodedata.unidata_version != "14.0.0":
        print(f"skipped: Python's Unicode is {unicodedata.unidata_version}, 14.0.0 is needed")
        return 77
    new = {}
    for category in CATEGORIES:
        for c in members(pre_tokenizers.Split(Regex(f"\\p{{{category}}}"), "isolated")):
            if unicodedata.category(chr(c)) == "Cn":
                new[c] = category
    ranges = []
    for c, category in sorted(new.items()):
        if ranges and ranges[-1][1] == c - 1 and ranges[-1][2] == category:
            ranges[-1][1] = c
        else:
            ranges.append([c, c, category])
    rows = ['{ 0x%x, 0x%x, "%s" },' % tuple(r) for r in ranges]
    if "--check" not in sys.argv:
        print("\n".join(rows))
        return 0
    source = open(sys.argv[sys.argv.index("--check") + 1], encoding="utf-8").read()
    table = source[source.index("} assigned[] = {"):source.index("ASSIGNED_COUNT")]
    have = re.findall(r'\{ 0x[0-9a-f]+, 0x[0-9a-f]+, "\w\w" \},', table)
    print(f"{len(rows)} ranges asked for, {len(have)} in the file, {'equal' if rows == have else 'different'}")
    return 0 if rows == have else 1


if __name__ == "__main__":
    sys.exit(main())
