#!/bin/bash -eu
# SPDX-License-Identifier: BSL-1.0
# Compiles each fuzz target into $OUT, with its corpus and its words. The builder image sets CXX,
# CXXFLAGS, LIB_FUZZING_ENGINE and OUT. Header-only, so no build system takes part.
# event_json stays out: it needs simdjson built with the image's standard library.
cd "$(dirname "$(readlink -f "$0")")"
[ -d fuzz ] || cd "${SRC:-..}/veltrix" 2>/dev/null || cd ..

for source in fuzz/*_fuzz.cpp; do
  name=$(basename "$source" .cpp)
  subject=${name%_fuzz}
  [ "$subject" = event_json ] && continue
  $CXX $CXXFLAGS -std=c++20 -DVELTRIX_CHECKED=1 -Iinclude -Itests "$source" \
    $LIB_FUZZING_ENGINE -pthread -o "$OUT/$name"
  if compgen -G "fuzz/corpus/$subject/*" >/dev/null; then
    zip -q -j "$OUT/${name}_seed_corpus.zip" "fuzz/corpus/$subject"/*
  fi
  if [ -f "fuzz/$subject.dict" ]; then
    cp "fuzz/$subject.dict" "$OUT/$name.dict"
  fi
  printf '[libfuzzer]\nmax_len = 1024\ntimeout = 10\n' >"$OUT/$name.options"
done
