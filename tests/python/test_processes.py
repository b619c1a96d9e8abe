"""Signals, threads, processes, and what is imported."""

import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import textwrap
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from numpy.testing import assert_array_equal

import pyflow


def fit(*args, **options):
    return pyflow.GIS(*args, verbose=False, **options)


# ---- Ctrl-C --------------------------------------------------------------------------------------

LONG = {
    "fit": "pyflow.GIS(x, max_layers=10**6, verbose=False)",
    "fit from a file": "pyflow.GIS(mapped, max_layers=10**6, verbose=False)",
    "evaluate": "model.evaluate_density(many)",
    "score": "model.score(many)",
    "sample": "model.sample(10**7)",
}


@pytest.mark.parametrize("call", LONG.values(), ids=LONG)
def test_control_c(call, tmp_path):
    """Each takes minutes if it is not interrupted; afterwards the process is as before."""
    script = f"""
        import sys
        sys.path[:0] = {sys.path!r}
        import numpy as np, pyflow

        x = np.random.default_rng(0).normal(size=(20_000, 10))
        x.tofile({str(tmp_path / "x")!r})
        mapped = np.memmap({str(tmp_path / "x")!r}, dtype=float, mode="r", shape=x.shape)
        model = pyflow.GIS(x[:300], max_layers=300, slice_steps=0, verbose=False)
        many = np.repeat(x, 100, axis=0)
        before = model.evaluate_density(x[:100])
        print("started", flush=True)
        try:
            {call}
        except KeyboardInterrupt:
            print("interrupted", flush=True)
        assert np.array_equal(model.evaluate_density(x[:100]), before)
        pyflow.GIS(x[:500], max_layers=2, verbose=False).sample(10)
        print("sane", flush=True)
    """
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script)], stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout.readline() == "started\n"
            time.sleep(0.5)
            process.send_signal(signal.SIGINT)
            out, _ = process.communicate(timeout=20)
        finally:
            process.kill()
    assert out == "interrupted\nsane\n"
    assert process.returncode == 0


def test_other_signals_raise_what_their_handlers_raise(train):
    def handler(number, frame):
        raise TimeoutError("time is up")

    before = signal.signal(signal.SIGALRM, handler)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.2)
        with pytest.raises(TimeoutError, match="time is up"):
            fit(np.repeat(train, 20, axis=0) + np.arange(3), max_layers=10**6)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert fit(train, max_layers=1)


def test_signals_still_count_after_a_call_inside_a_callback(model, test):
    """A progress function that evaluates a model must not take the fit's signals away."""
    x = np.random.default_rng(0).normal(size=(200_000, 10))

    def handler(number, frame):
        raise TimeoutError

    def progress(p):
        if p.step == 3:  # many more are to come, on the fastest machine
            model.evaluate_density(test)
            with pytest.raises(ValueError, match="x: "):
                model.evaluate_density(test * np.nan)
            signal.setitimer(signal.ITIMER_REAL, 0.1)

    def interrupted():
        with pytest.raises(TimeoutError) as error:
            fit(x, max_layers=1000, slice_steps=10_000, slice_points=len(x), progress=progress)
        return [frame.name for frame in error.traceback][-2:]

    before = signal.signal(signal.SIGALRM, handler)
    try:
        # It must come out of the core; now and then the alarm finds us in progress.
        assert ["run", "handler"] in (interrupted() for _ in range(5))
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_an_exception_in_a_callback_is_the_one_that_comes_out(train):
    def progress(p):
        return 1 / 0

    with pytest.raises(ZeroDivisionError):
        fit(train, max_layers=3, progress=progress)
    assert fit(train, max_layers=1)


# ---- threads -------------------------------------------------------------------------------------


def test_many_threads_share_a_model(model, test):
    expected = model.evaluate_density(test), model.score(test), model.sample(300, seed=5)[0]

    def work(_):
        return model.evaluate_density(test), model.score(test), model.sample(300, seed=5)[0]

    with ThreadPoolExecutor(8) as pool:
        for results in pool.map(work, range(64)):
            for result, right in zip(results, expected, strict=True):
                assert_array_equal(result, right)


def test_fits_in_many_threads(train):
    expected = [fit(train, max_layers=3, seed=seed) for seed in range(4)]
    with ThreadPoolExecutor(4) as pool:
        models = list(pool.map(lambda seed: fit(train, max_layers=3, seed=seed), range(4)))
    assert models == expected


def test_errors_belong_to_their_thread(model, test):
    def work(i):
        x = test.copy()
        x[i, 0] = np.nan
        with pytest.raises(ValueError, match=f"x: row {i}, column 0 is NaN"):
            model.evaluate_density(x)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(200)))


def test_python_goes_on_while_the_core_works(model):
    """The lock of the interpreter is given up during a call."""
    done, ticks = threading.Event(), 0

    def work():
        model.sample(400_000, seed=1)
        done.set()

    thread = threading.Thread(target=work)
    thread.start()
    while not done.is_set():
        ticks += 1
        time.sleep(0.001)
    thread.join()
    assert ticks > 3


# ---- processes -----------------------------------------------------------------------------------


def child(model, x, queue):
    queue.put((model.evaluate_density(x), fit(x, max_layers=2).to_bytes()))


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_multiprocessing(method, model, train, monkeypatch):
    """Forked after this process has used its threads, a child works all the same."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    pyflow.set_num_threads(2)
    try:
        expected = model.evaluate_density(train), fit(train, max_layers=2).to_bytes()
        context = multiprocessing.get_context(method)
        queue = context.Queue()
        processes = [context.Process(target=child, args=(model, train, queue)) for _ in range(2)]
        for process in processes:
            process.start()
        for _ in processes:
            logp, fitted = queue.get(timeout=60)
            assert_array_equal(logp, expected[0])
            assert fitted == expected[1]
        for process in processes:
            process.join(60)
            assert process.exitcode == 0
    finally:
        pyflow.set_num_threads(None)


def in_a_fork(work):
    """Run work() in a child of os.fork(); return its exit status, -1 if it hangs."""
    child = os.fork()
    if not child:
        status = 1
        try:
            work()
            status = 0
        finally:
            os._exit(status)
    for _ in range(6000):
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            return status
        time.sleep(0.005)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return -1


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_fork_while_another_thread_plans():
    """A child must not find the planner of Fourier transforms in the middle of a plan."""
    stop, failures = threading.Event(), []

    def transform(n):
        fields = np.random.default_rng(n).normal(size=(3, n, 6))
        flow = pyflow.SymmetricFlow(fields, epochs=0, verbose=False)
        return fields, flow.inverse(flow.forward(fields)[0])[0]

    def plan():
        try:
            n = 500
            while not stop.is_set():
                transform(n := n + 1)
        except BaseException as error:
            failures.append(error)

    def work():
        fields, back = transform(400)
        assert abs(back - fields).max() < 1e-6

    planner = threading.Thread(target=plan)
    planner.start()
    try:
        assert [in_a_fork(work) for _ in range(20)] == [0] * 20
    finally:
        stop.set()
        planner.join()
    assert not failures


@pytest.mark.parametrize("threads", ["1", "3", "", "none"])
def test_omp_num_threads_is_obeyed(threads):
    """It is read again at every call, unless set_num_threads() has said otherwise."""
    script = f"""
        import sys, os
        sys.path[:0] = {sys.path!r}
        import pyflow
        print(pyflow.get_num_threads())
        pyflow.set_num_threads(2)
        print(pyflow.get_num_threads())
        pyflow.set_num_threads(None)
        os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])
        print(pyflow.get_num_threads())
    """
    env = {**os.environ, "OMP_NUM_THREADS": threads}
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], env=env, capture_output=True, check=True
    )
    all_cpus = len(os.sched_getaffinity(0))
    first, last = (threads, threads) if threads.isdigit() else (all_cpus, 1)
    assert done.stdout.split() == [str(n).encode() for n in (first, 2, last)]


def test_a_call_that_fails_leaves_the_number_of_threads(model, test, train):
    def interrupted(progress):
        raise KeyboardInterrupt

    before = pyflow.get_num_threads()
    try:
        for n in (1, 3):
            pyflow.set_num_threads(n)
            with pytest.raises(ValueError, match="x: "):
                model.evaluate_density(test * np.nan)
            with pytest.raises(KeyboardInterrupt):
                fit(train, max_layers=3, progress=interrupted)
            assert pyflow.get_num_threads() == n
    finally:
        pyflow.set_num_threads(None)
    assert pyflow.get_num_threads() == before


@pytest.mark.filterwarnings("ignore")
def test_joblib(model, test):
    joblib = pytest.importorskip("joblib")
    expected = model.evaluate_density(test)
    for backend in ("loky", "threading"):
        parts = joblib.Parallel(n_jobs=2, backend=backend)(
            joblib.delayed(model.evaluate_density)(part) for part in np.array_split(test, 3)
        )
        assert_array_equal(np.concatenate(parts), expected)
    assert joblib.hash(model) == joblib.hash(pickle.loads(pickle.dumps(model)))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("scheduler", ["threads", "synchronous"])
def test_dask(model, test, scheduler):
    array = pytest.importorskip("dask.array")
    blocks = array.from_array(test, chunks=(60, 3))
    lazy = array.map_blocks(model.evaluate_density, blocks, drop_axis=1, dtype=float)
    assert_array_equal(lazy.compute(scheduler=scheduler), model.evaluate_density(test))
    assert_array_equal(model.evaluate_density(blocks), model.evaluate_density(test))


# ---- imports -------------------------------------------------------------------------------------


def test_importing_pyflow_imports_nothing_heavy():
    script = f"""
        import sys
        sys.path[:0] = {sys.path!r}
        import numpy
        before = set(sys.modules)
        import pyflow
        new = {{name.split(".")[0] for name in set(sys.modules) - before}}
        heavy = {{"matplotlib", "scipy", "tqdm", "sklearn", "torch", "dask", "asyncio", "tempfile"}}
        assert not new & heavy, new & heavy
        pyflow.GIS(numpy.random.normal(size=(50, 2)), max_layers=1, verbose=False)
        assert not heavy & set(sys.modules) - before
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(script)], check=True)


def test_the_module_can_be_made_again():
    """Each copy has a state of its own, and letting go of it leaves the first one working."""
    script = f"""
        import sys, gc
        sys.path[:0] = {sys.path!r}
        import numpy as np, pyflow
        from pyflow import _core as first
        x = np.random.default_rng(0).normal(size=(50, 2))
        model = first.gis_fit(data_train=x, max_layers=1)
        del sys.modules["pyflow._core"], pyflow._core
        from pyflow import _core as second
        assert second is not first and second.Flow is not first.Flow
        other = second.gis_fit(data_train=x, max_layers=1)
        assert other.to_bytes() == model.to_bytes()
        try:
            second.gis_fit(data_train=x, max_layers=2, flow=model)
        except TypeError:
            pass
        else:
            raise AssertionError("a model of another copy of the module was taken")
        del second, sys.modules["pyflow._core"], pyflow._core
        gc.collect()
        assert other.to_bytes() == model.to_bytes()
        del other
        gc.collect()
        print(model.evaluate_density(x[0]))
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(script)], check=True)
