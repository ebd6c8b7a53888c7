"""The binary interface of a run: what the words of a Plan, a Workspace and an entry's spec mean.

    int64 run(Plan*, Workspace*, void** in, void** out, int64* pc, int64 allowance_ns)

`Plan` is plain memory without addresses (it may be copied, pickled, mapped); `Workspace` holds all that one call in
flight needs: control words, kernel addresses, descriptor copies, and the arena's address. Both are int64 words:

    Plan        header (HEADER names), rows (ROW words each), relocations (RELOC words each), descriptor template, blocks
    Workspace   control words (CONTROL names; those that threads fight over on cache lines of their own),
                kernel addresses, descriptors

``*pc`` is 0 for a new run, else 1 + the row to go on with. ``run`` returns DONE, PAUSED (past its allowance: call
again), or FAILED (``*pc`` - 1 is the row whose kernel returned a status). `walker` is the code behind it, `runtime` finds
that code; neither is needed to lay a plan out. Compiled code on disk is keyed by this file too: a change here is a new
interface, and old code is never run against it.
"""

from __future__ import annotations

# Plan header, word numbers.
(N_ROWS, ROWS_AT, N_RELOCS, RELOCS_AT, N_WORDS, WORDS_AT, N_KERNELS, N_PARALLEL, COST, BLOCKS_AT, HEADER) = (
    range(11)
)
# A row: what it is, which kernel, where its descriptor begins, tiles, chunks of tiles, whether the run may pause before it.
KIND, KERNEL, DESC, TILES, CHUNKS, MAY_PAUSE, ROW_COST, ROW = range(8)
SERIAL, PARALLEL, LOOP, NEXT, BRANCH, JUMP = range(6)
"""Row kinds. The last four say which row comes next, and have words of their own in KERNEL, DESC, TILES, CHUNKS:

LOOP    TARGET, COUNTER, TRIPS           sets the counter to 0; goes to the target when there are no trips
NEXT    TARGET, COUNTER, TRIPS, BLOCK    counts; moves what moves and goes to the target, or moves it all back after TRIPS
BRANCH  -, WORD, BYTES, BLOCK            goes to the row that the integer (or bool) under the descriptor's pointer picks
JUMP    TARGET                           goes there

A block of NEXT: how many words move, then for each the descriptor word, bytes, and whether it goes there and back in turn.
A block of BRANCH: how many rows, then their numbers; the integer is clamped to them.
"""
TARGET, COUNTER, TRIPS, BLOCK = KERNEL, DESC, TILES, CHUNKS
MOVED, BY, IN_TURN, MOVE = range(4)
# A relocation: descriptor word, space, index, byte offset.
WORD, SPACE, INDEX, OFFSET, RELOC = range(5)
ARENA, STATE, INPUT, OUTPUT = range(4)
# Workspace control words. The first four are written by several threads: a cache line each.
PUBLISHED, TICKET, FINISHED, CLAIMED = 0, 8, 16, 24
STATUS, THREADS, KERNELS_AT, DESCS_AT, PLAN_IN, PC_AT, ALLOWANCE, EPOCH = range(32, 40)
ARRIVED = 25  # on CLAIMED's line
TOGETHER, PARALLEL_FOR, WORKER, LOCK, CLOCK, YIELD, SCRATCH, TIMES = 43, 44, 45, 46, 47, 48, 49, 55
CALLER, CALLER_CORE = 40, 41
SELF, CORE, GET_CORES, SET_CORES, CONTROL = 56, 57, 58, 59, 60
DONE, PAUSED, FAILED = range(3)

# What a run that is measured writes down, at the address in TIMES: so many events fit, so many came (those beyond are not
# kept), where each row's totals begin (ROW_TIME words a row), then the events: row, and the ticks before and after it.
FITS, CAME, TOTALS_AT, EVENTS = range(4)
TICKS, CALLS, ROW_TIME = range(3)
EVENT = 3

ROW_BITS = 20
"""What is published is (epoch, row) in one word."""
CHUNK_BITS = 12
MAX_CHUNKS = (1 << CHUNK_BITS) - 1
"""Chunks of a parallel row at most: a ticket is (epoch, first chunk left, end of those left) in one word."""

# The spec that an entry reads: addresses of Python's own objects and functions, the run's arguments, then for each array
# (A words) where its pointer goes, its dtype object, its bytes, its rank; its extents follow.
(S_COUNT, S_PLAN, S_WS, S_IN, S_OUT, S_PC, S_ALLOWANCE, S_RELEASE, S_SAVE, S_RESTORE, S_INCREF, S_NDARRAY, S_NONE, S_FALSE,
 S_TRUE, S_RUN, S_STATUS, S_INPUTS, SPEC) = range(19)  # fmt: skip
A_POINTER, A_DTYPE, A_BYTES, A_RANK, A = range(5)
