"""What Detectron2 is told of the processes, and lets go again."""

from detectron2.utils import comm

from common import distributed
from common.distributed import World
from detection.compat import process_groups
from tests.processes import gloos_threads, in_processes


def _gather_and_leave(world: World) -> None:
    with process_groups(world):
        assert comm.get_local_size() == 2 and comm.get_local_rank() == world.rank
        assert comm.all_gather(world.rank) == [0, 1]
        assert gloos_threads() > 0
    distributed.stop()
    assert not gloos_threads()  # or one that is not at rest aborts the process at its end


def test_a_process_group_ends_before_its_processes() -> None:
    in_processes(_gather_and_leave)
