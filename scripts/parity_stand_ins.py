#!/usr/bin/env python3
"""Makes PyTorch's package importable on a machine without CUDA's libraries, for work on the CPU.

The package links against some fifteen shared libraries of CUDA. Each that is absent is replaced by
one with the same name, the same symbols and the same symbol versions, whose functions do nothing.
Needs gcc, readelf and objdump. Prints what it made.
"""

import re
import subprocess
import sysconfig
import tempfile
from pathlib import Path

# What CUDA's libraries are called, and what their functions are called.
LIBRARY = re.compile(r"lib(cu|nv|nccl)")
FUNCTION = re.compile(r"^_*(cu|nccl|nvshmem|nvrtc|nvJitLink|nvtx|nvml)")


def output(*command):
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def survey(folder):
    """Absent libraries, the symbol versions wanted of each, and the symbols of each version."""
    needed, versions, symbols = set(), {}, {}
    for path in sorted(folder.glob("*.so*")):
        if path.is_symlink() or path.read_bytes()[:4] != b"\x7fELF":
            continue
        for name in re.findall(r"NEEDED.*\[(.*?)\]", output("readelf", "-dW", path)):
            if LIBRARY.match(name) and not (folder / name).exists():
                needed.add(name)
        library = None
        for line in output("readelf", "-VW", path).splitlines():
            if found := re.search(r"File: (\S+)", line):
                library = found[1]
            if (found := re.search(r"Name: (\S+)", line)) and library:
                versions.setdefault(library, set()).add(found[1])
        undefined = r"\*UND\*\s+[0-9a-f]+\s+(?:Base\s+)?(?:\((\S+)\)\s+)?(\S+)\s*$"
        for line in output("objdump", "-T", path).splitlines():
            if found := re.search(undefined, line):
                symbols.setdefault(found[1] or "", set()).add(found[2])
    return needed, versions, symbols


def build(path, functions, versions):
    """One library; `versions` maps a symbol version to its symbols."""
    with tempfile.TemporaryDirectory() as scratch:
        source, script = Path(scratch, "s.c"), Path(scratch, "s.map")
        source.write_text("".join(f"long {f}(void) {{ return 1; }}\n" for f in sorted(functions)))
        command = ["gcc", "-shared", "-fPIC", "-w", "-fno-builtin", f"-Wl,-soname,{path.name}",
                   source, "-o", path]
        if versions:
            block = "{} {{ global: {} }};\n"
            script.write_text("".join(block.format(v, " ".join(f"{f};" for f in sorted(names)))
                                      for v, names in versions.items()))
            command.append(f"-Wl,--version-script={script}")
        subprocess.run(command, check=True)


def main():
    folder = Path(sysconfig.get_path("purelib"), "torch", "lib")
    needed, versions, symbols = survey(folder)
    unversioned = {name for name in symbols.get("", ()) if FUNCTION.match(name)}
    for library in sorted(needed):
        wanted = {v: symbols.get(v, set()) for v in sorted(versions.get(library, ()))}
        functions = set().union(*wanted.values()) if wanted else unversioned
        build(folder / library, functions, wanted)
        print(f"made a stand-in for {library}: {len(functions)} functions")


if __name__ == "__main__":
    main()
