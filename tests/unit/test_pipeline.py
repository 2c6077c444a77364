"""Schedules whose cycles follow by hand, on both engines."""

import numpy as np
import pytest

from simulator import LIMITS
from simulator.timing.engines.engine import COMPILED, EVENT
from simulator.timing.schedule import Makespan, Schedule

STAGES = ("hashing", "array", "reconstructor")


@pytest.fixture(params=[COMPILED, EVENT], ids=lambda engine: engine.name)
def run(request):
    """An engine's `run`, of plain lists; block i is limited by LIMITS[i + 1] unless said."""

    def of_lists(load, blocks, store, load_latency=0, latency=None, limits=None) -> Makespan:
        occupancy = np.array(blocks, np.int64).reshape(len(blocks), len(load))
        numbers = np.arange(1, len(blocks) + 1)[:, None]
        return request.param.run(
            Schedule(
                stages=STAGES[: len(blocks)],
                load_cycles=np.array(load, np.int64),
                load_latency_cycles=load_latency,
                store_cycles=np.array(store, np.int64),
                occupancy_cycles=occupancy,
                latency_cycles=np.broadcast_to(
                    np.array(0 if latency is None else latency, np.int64), occupancy.shape
                ).copy(),
                limits=np.broadcast_to(
                    numbers if limits is None else limits, occupancy.shape
                ).astype(np.int8),
            )
        )

    return of_lists


def test_one_tile_is_the_sum_of_its_blocks(run):
    # 3 to load, 5 and 7 in the blocks, 2 to store.
    found = run([3], [[5], [7]], [2])
    assert found.cycles == 3 + 5 + 7 + 2
    assert found.critical_cycles == {"dram": 3 + 2, "front_end": 5, "cache": 7}


def test_latencies_delay_a_tile_but_not_the_next(run):
    # One tile pays every latency: 3 + 4 to load, 5 + 6 in the block, 2 to store.
    found = run([3], [[5]], [2], load_latency=4, latency=6)
    assert found.cycles == 3 + 4 + 5 + 6 + 2
    assert found.critical_cycles == {"dram": 3 + 4 + 2, "front_end": 5 + 6}
    # Ten tiles pay them once: the block takes the next tile while results are on their way.
    assert run([0] * 10, [[5] * 10], [0] * 10, latency=6).cycles == 10 * 5 + 6
    # A tile's results that take longer than the next one's do not overtake: the second block takes
    # tile 0 at 1 + 8 and tile 1 right after it.
    assert run([0] * 2, [[1, 1], [1, 1]], [0] * 2, latency=[[8, 0], [0, 0]]).cycles == 9 + 1 + 1


def test_even_tiles_run_at_the_pace_of_the_slowest_block(run):
    # Ten tiles: the first takes 5 + 9 + 2, each later one adds the slowest block's 9.
    found = run([0] * 10, [[5] * 10, [9] * 10, [2] * 10], [0] * 10)
    assert found.cycles == 16 + 9 * 9
    # First tile through block 0, then block 1 is never idle, last tile through block 2.
    assert found.critical_cycles == {"front_end": 5, "cache": 10 * 9, "array": 2}


@pytest.mark.parametrize("tiles", [1, 2, 3, 7])
@pytest.mark.parametrize("times", [(4, 1, 9), (1, 1, 1), (0, 6, 3), (8, 8, 2)])
def test_even_tiles_closed_form(run, tiles, times):
    found = run([0] * tiles, [[time] * tiles for time in times], [0] * tiles)
    assert found.cycles == sum(times) + (tiles - 1) * max(times)


@pytest.mark.parametrize("tiles", [1, 2, 5, 20])
def test_slow_loads_set_the_pace(run, tiles):
    # The block hides behind loads; nothing is stored.
    found = run([7] * tiles, [[3] * tiles], [0] * tiles)
    assert found.cycles == 7 * tiles + 3
    assert found.critical_cycles == {"dram": 7 * tiles, "front_end": 3}


def test_dma_carries_loads_and_stores(run):
    # Four tiles, 4 cycles in and 4 out, 1 cycle of work: 8 transfers of 4 cycles, none idle.
    # L0 4, L1 8, S0 (there since 5) 12, L2 16, S1 20, L3 24, S2 28, S3 (there since 25) 32.
    found = run([4] * 4, [[1] * 4], [4] * 4)
    assert found.cycles == 32
    assert found.critical_cycles == {"dram": 32}


def test_double_buffer_stops_a_fast_block(run):
    # Block 0 takes 1, block 1 takes 10. Block 0 works on tile 2 only when block 1 is done with
    # tile 0 (at 11), on tile 3 when it is done with tile 1 (at 21). End: 1 + 4 x 10.
    assert run([0] * 4, [[1] * 4, [10] * 4], [0] * 4).cycles == 41
    # A slow third tile in block 0 waits for room first: it starts at 11 and ends at 41, so block 1
    # does it till 51 and the fourth, waiting since 42, till 61.
    found = run([0] * 4, [[1, 1, 30, 1], [10] * 4], [0] * 4)
    assert found.cycles == 61
    # Back from the end: tiles 3 and 2 of block 1, the slow tile (11 to 41), which waited for block
    # 1's tile 0 (1 to 11), which waited for block 0's tile 0.
    assert found.critical_cycles == {"cache": 20 + 10, "front_end": 30 + 1}


def test_double_buffer_stops_a_load(run):
    # Loads of 1, work of 10. Load 2 waits until tile 0 is done with at 11, load 3 until 21.
    assert run([1] * 4, [[10] * 4], [0] * 4).cycles == 1 + 4 * 10
    # A slow third load can't start before 11: 11 + 30, then tile 2; load 3 is there by then.
    assert run([1, 1, 30, 1], [[10] * 4], [0] * 4).cycles == 11 + 30 + 10 + 10


def test_output_buffer_holds_two_outputs_however_many_tiles_each_takes(run):
    # Every third tile is stored, 100 cycles each; nothing is loaded. Output 0 is ready at 3 and
    # stored by 103, output 1 (ready at 6) by 203. Tile 6 starts output 2 in the half that output 0
    # has left, at 103; it is ready at 106 and stored at 303.
    store = [0, 0, 100] * 3
    assert run([0] * 9, [[1] * 9], store).cycles == 303
    # So a slow tile 6 starts at 103, not at 6: it ends at 603, tiles 7 and 8 at 605.
    slow = [1] * 6 + [500, 1, 1]
    found = run([0] * 9, [slow], store)
    assert found.cycles == 103 + 500 + 2 + 100
    assert found.critical_cycles == {"front_end": 3 + 502, "dram": 100 + 100}


def test_an_empty_transfer_waits_for_nothing(run):
    # Tile 1 loads nothing and is worked on while the DMA engine still loads tile 2.
    found = run([5, 0, 50], [[4, 4, 4]], [0, 0, 0])
    # L0 till 5; L2 waits for tile 0 (9) till 59; tile 2 till 63.
    assert found.cycles == 63


def test_limits_share_the_blame(run):
    array, port = LIMITS.index("array"), LIMITS.index("weight_buffer")
    found = run([0, 0], [[5, 6]], [0, 0], limits=np.array([[array, port]]))
    assert found.critical_cycles == {"array": 5, "weight_buffer": 6}


def test_of_waits_that_end_together_the_first_is_to_blame(run):
    # Block 1 is done with tile 0 at 4 just as block 0 hands it tile 1: its own tile is to blame.
    assert run([0] * 2, [[2, 2], [2, 2]], [0] * 2).critical_cycles == {"front_end": 2, "cache": 4}


def test_nothing_takes_no_time(run):
    assert run([0], [[0]], [0]) == Makespan(cycles=0, critical_cycles={})
