#!/usr/bin/env python3
# SPDX-License-Identifier: BSL-1.0
"""Checks the vcpkg manifest and the overlay port without vcpkg: fields, versions, helper calls."""
import json
import pathlib
import re
import sys

root, version = pathlib.Path(sys.argv[1]), sys.argv[2]
port = root / "packaging/vcpkg/ports/veltrix"
faults = []


def want(condition, fault):
    if not condition:
        faults.append(fault)


manifests = {"vcpkg.json": root / "vcpkg.json", "port vcpkg.json": port / "vcpkg.json"}
for name, path in manifests.items():
    manifest = json.loads(path.read_text())
    want(manifest.get("name") == "veltrix", f"{name}: name must be veltrix")
    want(manifest.get("version-semver") == version, f"{name}: version-semver must be {version}")
    want(manifest.get("license") == "BSL-1.0", f"{name}: license must be BSL-1.0")
    want(len(manifest.get("description", "")) > 20, f"{name}: a description is missing")
    for used in manifest.get("dependencies", []):
        want(used == {**used, "host": True}, f"{name}: {used}: the headers need no target package")

portfile = (port / "portfile.cmake").read_text()
for call in ("vcpkg_cmake_configure(", "vcpkg_cmake_install(", "vcpkg_cmake_config_fixup(",
             "vcpkg_fixup_pkgconfig(", "vcpkg_install_copyright("):
    want(portfile.count(call) == 1, f"portfile: wants one call of {call})")
want("set(VCPKG_BUILD_TYPE release)" in portfile,
     "portfile: a header-only port builds release only")
want(portfile.count("(") == portfile.count(")"), "portfile: parentheses do not match")
config = re.search(r"CONFIG_PATH (\S+)\)", portfile)
listed = (root / "CMakeLists.txt").read_text()
want(config and config.group(1) == "share/cmake/veltrix" and
     "${CMAKE_INSTALL_DATADIR}/cmake/veltrix" in listed,
     "portfile: CONFIG_PATH differs from where CMakeLists.txt installs the config")
for option in re.findall(r"-D(VELTRIX_\w+)", portfile):
    want(option in listed, f"portfile: option {option} does not exist in CMakeLists.txt")
want("find_package(veltrix CONFIG REQUIRED)" in (port / "usage").read_text(),
     "usage: must show find_package")

print("\n".join(faults) if faults else f"2 manifests and 1 portfile agree on version {version}")
sys.exit(1 if faults else 0)
