#!/usr/bin/env python3
"""Who may include whom (DESIGN section 3): reports every #include that points the wrong way, and every
third-party header outside the files that it may stand in."""
import os
import re
import sys

ROOT = sys.argv[1] if len(sys.argv) > 1 else os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
# A room sees itself and these.  The model stands inside the worker's folder and knows no wire.
SEES = {
    "base": [],
    "proto": ["base"],
    "kernels": ["base"],
    "worker/model": ["base", "kernels"],
    "worker": ["base", "proto", "kernels", "worker/model"],
    "broker": ["base", "proto"],
    "client": ["base", "proto", "worker/model"],
    "deploy/demo": ["base"],
}
# A third-party header, and the files that may name it.
ONLY_IN = {
    "zmq.h": ["proto/link.c"],
    "sqlite3.h": ["broker/store_sqlite_inside.h"],
    "yaml.h": ["base/yaml_fields.c"],
    "pcre2.h": ["worker/model/"],
    "utf8proc.h": ["worker/model/", "client/unicode.c"],
    "cuda_runtime.h": ["kernels/cuda/"],
}


def room(path):
    best = ""
    for name in SEES:
        if path.startswith(name + "/") and len(name) > len(best):
            best = name
    return best


def main():
    faults, files = [], 0
    for top in ("base", "proto", "broker", "worker", "kernels", "client", "deploy"):
        for folder, _, names in os.walk(os.path.join(ROOT, top)):
            for name in names:
                if not name.endswith((".c", ".h", ".cu", ".cuh")):
                    continue
                path = os.path.relpath(os.path.join(folder, name), ROOT)
                own = room(path)
                files += 1
                for number, line in enumerate(open(os.path.join(ROOT, path), encoding="utf-8"), 1):
                    found = re.match(r'\s*#\s*include\s*["<]([^">]+)[">]', line)
                    if not found:
                        continue
                    header = found.group(1)
                    other = room(header)
                    if other and own and other != own and other not in SEES[own]:
                        faults.append(f"{path}:{number}: {own} may not include {header}")
                    if header in ONLY_IN and not any(path == p or (p.endswith("/") and path.startswith(p)) for p in ONLY_IN[header]):
                        faults.append(f"{path}:{number}: {header} belongs in {' or '.join(ONLY_IN[header])}")
                    if header.endswith(".c"):
                        faults.append(f"{path}:{number}: a .c file is included")
    for fault in faults:
        print(fault)
    print(f"{files} files, {len(faults)} faults")
    return 1 if faults or files == 0 else 0


if __name__ == "__main__":
    sys.exit(main())
