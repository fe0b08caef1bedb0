// The micro-kernel of this table.
#pragma once
#if defined(FC_DOTS)
#include "dot_tiles.h"
#else
#include "amx_tiles.h"
#endif
