// CMake precompiles a header for a target that has a source; this is that source.
// SPDX-License-Identifier: BSL-1.0
