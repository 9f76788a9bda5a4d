// Every public header of the library, and nothing else.
// Use for: trying things out; a service includes the headers it uses.
// Not for: the reference worker; its headers are under veltrix/worker/.
// Threads: as each header says.
// Progress: as each header says.
// Callbacks: as each header says.
// Exceptions: as each header says.
// Lifetime: as each header says.
// Guide: docs/index.md
// SPDX-License-Identifier: BSL-1.0
#pragma once

#include "backoff.hpp"
#include "bounded_queue.hpp"
#include "clock.hpp"
#include "concurrent_map.hpp"
#include "connection_pool.hpp"
#include "elastic_pool.hpp"
#include "endpoint_set.hpp"
#include "executor.hpp"
#include "hedge.hpp"
#include "keyed_executor.hpp"
#include "lease.hpp"
#include "loading_cache.hpp"
#include "pool_sizer.hpp"
#include "readiness.hpp"
#include "reclaim.hpp"
#include "resilience.hpp"
#include "retry.hpp"
#include "snapshot_cell.hpp"
#include "stop_token.hpp"
#include "two_phase_loader.hpp"
#include "version.hpp"
