"""The front door: light, complete, and in order."""

from __future__ import annotations

import importlib
import pickle
import pkgutil

import pytest

import futurefarm
from futurefarm import errors, run_tasks

from .companion import run

HEAVY = ("loky", "numpy", "tqdm", "filelock", "sqlite3", "cloudpickle", "click", "multiprocessing")
DOORS = ["futurefarm", "futurefarm.executors", "futurefarm.testing"]
MODULES = [module.name for module in pkgutil.walk_packages(futurefarm.__path__, "futurefarm.")]


def loaded_after(code: str) -> set[str]:
    return set(run(f"import sys\n{code}\nprint(*sys.modules)").split())


def test_importing_the_package_loads_nothing_heavy():
    assert set() == loaded_after("import futurefarm") & set(HEAVY)


def test_a_worker_that_unpickles_a_task_loads_nothing_heavy():
    data = pickle.dumps(futurefarm.Params(k=1)).hex()
    loaded = loaded_after(f"import pickle; pickle.loads(bytes.fromhex({data!r}))")

    assert "futurefarm.spaces" in loaded
    assert set() == loaded & set(HEAVY)


def test_storing_results_loads_neither_engines_nor_bars(tmp_path):
    code = f"with futurefarm.DataManager('x', {str(tmp_path)!r}).session() as session: session['a'] = 1"
    loaded = loaded_after(f"import futurefarm\n{code}")

    assert set() == loaded & {"loky", "numpy", "tqdm", "cloudpickle", "click"}


def test_a_worker_starts_without_what_it_does_not_use():
    """Each of them would be paid for by every worker of every sweep."""
    unused = {"statistics", "tempfile", "shutil", "shlex", "futurefarm.trust"}
    unused |= {f"futurefarm.store.{room}" for room in ("cells", "examine", "recover", "salvage")}

    assert set() == loaded_after("import futurefarm.worker") & unused


@pytest.mark.parametrize("name", ["loky", "process"])
def test_a_worker_loads_its_own_room_and_not_those_of_the_executors(dataman, by_value, name):
    run_tasks(dataman, rooms_loaded, [0], name, workers=1, progress=False)

    assert [[]] == [sorted(room for room in rooms if "executors" in room) for rooms in dataman.values()]


def rooms_loaded(_):
    import sys

    return [room for room in sys.modules if room.startswith("futurefarm.")]


def test_an_engine_of_ours_is_found_without_looking_at_all_installed_packages():
    assert "importlib.metadata" not in loaded_after(
        "from futurefarm import executors; executors.resolve('serial')"
    )


@pytest.mark.parametrize("door", DOORS)
def test_every_public_name_exists_and_is_listed_in_order(door):
    module = importlib.import_module(door)

    assert sorted(module.__all__) == list(module.__all__)
    assert all(getattr(module, name) is not None for name in module.__all__)
    assert set(module.__all__) <= set(dir(module))


@pytest.mark.parametrize("name", MODULES)
def test_every_room_says_what_it_is_and_what_it_offers(name):
    module = importlib.import_module(name)

    assert module.__doc__
    assert all(hasattr(module, public) for public in getattr(module, "__all__", ()))


def test_the_version_is_that_of_the_installed_package():
    from importlib.metadata import version

    assert version("futurefarm") == futurefarm.__version__


def test_a_misspelled_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'run_task'"):
        futurefarm.run_task  # noqa: B018


def test_public_objects_can_be_pickled_by_their_names():
    for name in futurefarm.__all__:
        public = getattr(futurefarm, name)
        assert public is pickle.loads(pickle.dumps(public)) or name == "__version__"


def test_every_public_error_reaches_another_process_whole():
    sent = [getattr(errors, name)("what, where, what now", path="/x") for name in errors.__all__]
    said = run(
        """
        import pickle, sys

        for error in pickle.loads(bytes.fromhex(sys.argv[1])):
            print(type(error).__name__, error, error.path)
        """,
        pickle.dumps(sent).hex(),
    )

    assert [f"{name} what, where, what now /x" for name in errors.__all__] == said.splitlines()
