# SPDX-License-Identifier: BSL-1.0
import os
import re

from conan import ConanFile
from conan.tools.build import check_min_cppstd
from conan.tools.files import copy, load
from conan.tools.layout import basic_layout


class VeltrixConan(ConanFile):
    name = "veltrix"
    description = "Concurrency and caching primitives, header-only C++20"
    license = "BSL-1.0"
    topics = ("concurrency", "cache", "thread-pool", "hash-map", "header-only")
    package_type = "header-library"
    settings = "os", "arch", "compiler", "build_type"
    exports_sources = "include/*", "LICENSE"
    no_copy_source = True

    def set_version(self):
        text = load(self, os.path.join(self.recipe_folder, "include", "veltrix", "version.hpp"))
        self.version = re.search(r'VELTRIX_VERSION_STRING "([^"]+)"', text).group(1)

    def layout(self):
        basic_layout(self)

    def validate(self):
        if self.settings.get_safe("compiler.cppstd"):
            check_min_cppstd(self, 20)

    def package(self):
        copy(self, "LICENSE", self.source_folder, os.path.join(self.package_folder, "licenses"))
        copy(self, "*.hpp", os.path.join(self.source_folder, "include"),
             os.path.join(self.package_folder, "include"))

    def package_id(self):
        self.info.clear()

    def package_info(self):
        self.cpp_info.bindirs = []
        self.cpp_info.libdirs = []
        self.cpp_info.set_property("cmake_file_name", "veltrix")
        self.cpp_info.set_property("cmake_target_name", "veltrix::veltrix")
        self.cpp_info.set_property("pkg_config_name", "veltrix")
        if self.settings.os in ("Linux", "FreeBSD"):
            self.cpp_info.system_libs = ["pthread"]
