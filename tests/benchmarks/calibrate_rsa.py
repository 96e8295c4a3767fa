"""Are the errors, tests and intervals of RSA calibrated? Simulated data sets under each generalisation's own null.

    python tests/benchmarks/calibrate_rsa.py --datasets 1000 --out /somewhere/calibration
    python tests/benchmarks/calibrate_rsa.py --out /somewhere/calibration --table

Cells are ``target:SUBJECTSxSTIMULI``, for example ``--cells both:12x30 stimulus:20x60``. Finished blocks of data sets
are kept in ``--out`` and not computed again: a run that was stopped goes on, and one with more data sets adds to it.

The simulated world
    Every stimulus has features a, b, g, q (normal) and one of three categories c, drawn independently. A subject's RDM
    is ``α D(a) + β D(b) + γ D(g)`` plus squared distances of features that are its own and independent of everything:
    its noise, which stimuli carry too. D are squared Euclidean distances, gains (α, β, γ) differ between subjects.

Models, and which hypotheses hold exactly
    ======== ============================= =================================================
    contrast ``D(a) − D(b)``               score 0: swapping a and b flips its sign and leaves
                                           the distribution of the data unchanged
    unrelated ``D(q)``, categories (c)     score 0: any pairing of q or c with the other
                                           features is equally likely, and over all pairings
                                           the products of centred RDMs sum to 0
    A, B     ``D(a)``, ``D(b)``            difference 0, by the same swap; scores above 0
    true     mean RDM of all subjects      not below the lower ceiling
    ======== ============================= =================================================

    stimulus: the subjects (gains) are fixed for the cell, stimuli and noise are drawn; α = β within each subject, so
    that the swap holds subject by subject. both: subjects are drawn too, (α, β) exchangeable. subject: the stimuli are
    fixed (four sets a cell) and subjects drawn; there the part of a subject's centred RDM in the span of contrast,
    unrelated and categories is multiplied by a random sign, so that the mean of their scores over the population is
    exactly 0 for these very stimuli. That is so for Pearson; with another measure the subject cells are left out.

The table
    Share of data sets with p < .05 for every true null hypothesis, share of missed parameters for intervals, false
    discovery rate (of all tests of a family at once, true and false nulls mixed), and power. ``!`` marks rates above
    .05 beyond chance (binomial test, Holm over all rates of the run with the same variance and degrees of freedom),
    ``~`` rates of t tests outside .025 – .065 with 12 or more subjects and 30 or more stimuli.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before numpy: the processes share the cores

import numpy as np
from scipy import stats

from actkit.analyses.comparison import Compare, ceilings, resample, scores
from actkit.analyses.inference import Dof, LeaveOut, Target, infer, leave_one_out

MODELS = ("contrast", "unrelated", "categories", "A", "B", "true")
NULL_SCORES = (0, 1, 2)
NULL_PAIRS = ((1, 0), (2, 1), (4, 3))  # as (model, other_model)
TARGETS: tuple[Target, ...] = ("subject", "stimulus", "both")
SIZES = ("5x12", "12x30", "20x60", "20x100")
FORMS: dict[str, tuple[bool, Dof]] = {
    "ours, Satterthwaite": (True, "satterthwaite"),
    "ours, min(n) - 1": (True, "conservative"),
    "bootstrap, min(n) - 1": (False, "conservative"),
}
BLOCK = 50  # data sets a file
SETS = 4  # of fixed stimuli in a cell that generalises to subjects
SHARED = 0.35  # scale of the shared distances; the noise has a scale around 1
ALPHA = 0.05


@dataclass(frozen=True)
class Cell:
    """What is generalised to, and how many subjects and stimuli there are."""

    target: Target
    n_subjects: int
    n_stimuli: int

    @classmethod
    def parse(cls, text: str) -> Cell:
        """Read ``both:12x30``."""
        target, _, size = text.partition(":")
        subjects, _, stimuli = size.partition("x")
        if target not in TARGETS or not (subjects.isdigit() and stimuli.isdigit()):
            raise SystemExit(f"{text!r} is not a cell; write it like both:12x30")
        return cls(TARGETS[TARGETS.index(target)], int(subjects), int(stimuli))

    def __str__(self) -> str:
        return f"{self.target}:{self.n_subjects}x{self.n_stimuli}"

    @property
    def key(self) -> list[int]:
        return [TARGETS.index(self.target), self.n_subjects, self.n_stimuli]

    @property
    def large(self) -> bool:
        return self.n_subjects >= 12 and self.n_stimuli >= 30


def squared_distances(x: np.ndarray) -> np.ndarray:
    """``(…, stimuli, features)`` to ``(…, pairs)``."""
    row, column = np.triu_indices(x.shape[-2], 1)
    gram = x @ np.swapaxes(x, -1, -2)
    square = np.einsum("...ii->...i", gram)
    return np.asarray(square[..., row] + square[..., column] - 2 * gram[..., row, column])


def unit(v: np.ndarray) -> np.ndarray:
    """Centre and scale to unit length."""
    v = v - v.mean(axis=-1, keepdims=True)
    return np.asarray(v / np.linalg.norm(v, axis=-1, keepdims=True))


def features(rng: np.random.Generator, n: int) -> dict[str, np.ndarray]:
    """RDMs of a sample of stimuli, one for each kind of feature."""
    rdms = {
        name: squared_distances(rng.normal(size=(n, size))) for name, size in zip("abgq", (3, 3, 5, 4), strict=True)
    }
    category = rng.integers(0, 3, n)
    rdms["c"] = (category[:, None] != category)[np.triu_indices(n, 1)].astype(float)
    return rdms


def gains(rng: np.random.Generator, n: int, target: Target) -> dict[str, np.ndarray]:
    """A sample of subjects: how strongly they represent a, b and g, and their noise."""
    base = rng.gamma(6, 1 / 6, n)
    balance = np.ones(n) if target == "stimulus" else 2 * rng.beta(2, 2, n)
    return {
        "a": base * balance,
        "b": base * (2 - balance),
        "g": rng.gamma(6, 1 / 6, n),
        "noise": rng.gamma(10, 0.1, n),
    }


def simulate(cell: Cell, number: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw data set `number` of a cell: models and subjects' RDMs."""
    rng = np.random.default_rng([*cell.key, 1, number])
    fixed = np.random.default_rng([*cell.key, 0, number % SETS if cell.target == "subject" else 0])
    stimuli = features(fixed if cell.target == "subject" else rng, cell.n_stimuli)
    people = gains(fixed if cell.target == "stimulus" else rng, cell.n_subjects, cell.target)
    noise = squared_distances(rng.normal(size=(cell.n_subjects, cell.n_stimuli, 6)))
    data = people["noise"][:, None] * noise
    for name in "abg":
        data += SHARED * people[name][:, None] * stimuli[name]
    share = {name: people[name].mean() if cell.target == "stimulus" else 1.0 for name in "abg"}
    true = sum(share[name] * stimuli[name] for name in "abg")
    contrast = stimuli["a"] - stimuli["b"]
    if cell.target == "subject":
        contrast = unit(stimuli["a"]) - unit(stimuli["b"])
        nulls = np.stack([contrast, stimuli["q"], stimuli["c"]])
        basis, _ = np.linalg.qr((nulls - nulls.mean(axis=1, keepdims=True)).T)
        data -= data.mean(axis=1, keepdims=True)
        part = (data @ basis) @ basis.T
        data += (rng.choice([-1, 1], size=(cell.n_subjects, 1)) - 1) * part
        true = true - true.mean()
        true = true - basis @ (basis.T @ true)
    return np.stack([contrast, stimuli["q"], stimuli["c"], stimuli["a"], stimuli["b"], true]), data


def analyse(
    cell: Cell, number: int, n_draws: int, forms: Iterable[str] = FORMS, compare: Compare = "pearson"
) -> dict[str, np.ndarray]:
    """Simulate one data set and test it in every form: arrays named ``form/variable``."""
    models, data = simulate(cell, number)
    rng = np.random.default_rng([*cell.key, 2, number])
    n_stimuli, n_subjects = cell.n_stimuli, cell.n_subjects
    stimuli = rng.multinomial(n_stimuli, np.ones(n_stimuli) / n_stimuli, size=n_draws)
    subjects = rng.multinomial(n_subjects, np.ones(n_subjects) / n_subjects, size=n_draws)
    if cell.target == "subject":
        drawn = resample(models, data, None, subjects, compare, workers=1)
    else:
        drawn = resample(models, data, stimuli, subjects, compare, workers=1)
    left: LeaveOut = leave_one_out(models, data, compare, cell.target, workers=1)
    score, (lower, upper) = scores(models, data, compare), ceilings(data, compare)
    kinds: tuple[Target, ...] = ("subject",) if cell.target == "subject" else ("stimulus", "subject", "both")
    means = {kind: drawn.mean(kind) for kind in kinds}
    out = {"mean": score.mean(axis=1), "lower": lower.mean(), "upper": upper.mean()}
    for form in forms:
        jackknifed, dof = FORMS[form]
        result = infer(
            score,
            lower,
            upper,
            means,
            drawn.lower,
            drawn.upper,
            target=cell.target,
            n_subjects=n_subjects,
            n_stimuli=n_stimuli,
            leave_out=left if jackknifed else None,
            dof=dof,
        )
        out |= {f"{form}/{name}": result[name].values for name in result.data_vars}
    return out


@dataclass(frozen=True)
class Job:
    """How data sets are analysed, and where finished blocks of them are kept."""

    out: Path
    n_draws: int
    compare: Compare

    def path(self, cell: Cell, start: int) -> Path:
        """File of one block of data sets."""
        size = f"{cell.n_subjects}x{cell.n_stimuli}"
        return self.out / f"{cell.target}_{size}_{self.compare}_{self.n_draws}draws_{start:05d}.npz"


def compute(job: Job, cell: Cell, start: int) -> float:
    """Compute one block of data sets and keep it; seconds."""
    clock = time.perf_counter()
    rows = [analyse(cell, number, job.n_draws, FORMS, job.compare) for number in range(start, start + BLOCK)]
    path = job.path(cell, start)
    partial = path.with_suffix(".partial")
    with partial.open("wb") as file:
        np.savez(file, **{name: np.stack([row[name] for row in rows]) for name in rows[0]})
    partial.replace(path)
    return time.perf_counter() - clock


def run(cells: list[Cell], datasets: int, job: Job, workers: int) -> None:
    """Compute the blocks that are missing, the slowest cells first."""
    job.out.mkdir(parents=True, exist_ok=True)
    order = sorted(cells, key=lambda cell: -cell.n_stimuli * cell.n_stimuli * cell.n_subjects)
    blocks = [(cell, start) for cell in order for start in range(0, datasets, BLOCK)]
    missing = [(cell, start) for cell, start in blocks if not job.path(cell, start).exists()]
    clock, spent = time.perf_counter(), dict.fromkeys(cells, 0.0)
    # A spawned process imports what it needs anew: a forked one could inherit a lock that a thread holds.
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        waiting = {pool.submit(compute, job, cell, start): cell for cell, start in missing}
        for done, block in enumerate(as_completed(waiting), 1):
            spent[waiting[block]] += block.result()
            if done % 10 == 0 or done == len(waiting):
                print(f"{done}/{len(waiting)} blocks, {time.perf_counter() - clock:.0f} s", file=sys.stderr, flush=True)
    for cell, seconds in spent.items():
        number = BLOCK * sum(1 for other, _ in missing if other == cell)
        if number:
            print(f"{cell}: {1000 * seconds / number:.0f} ms a data set", file=sys.stderr)


def gather(job: Job, cell: Cell, datasets: int) -> dict[str, np.ndarray]:
    """Read the blocks of a cell that exist."""
    paths = [job.path(cell, start) for start in range(0, datasets, BLOCK)]
    parts = [dict(np.load(path)) for path in paths if path.exists()]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]} if parts else {}


@dataclass
class Rate:
    """One rate of the table."""

    cell: Cell
    form: str
    group: str
    name: str
    values: np.ndarray  # one a data set: 0 or 1, or a false discovery proportion
    bounded: bool = True  # must not exceed ALPHA
    banded: bool = False  # should lie in .025 - .065 in large cells
    flag: str = ""

    @property
    def rate(self) -> float:
        return float(self.values.mean())

    def exceeds(self) -> float:
        """p-value of the rate being ALPHA or less."""
        n = len(self.values)
        if set(np.unique(self.values)) <= {0.0, 1.0}:
            return float(stats.binom.sf(self.values.sum() - 1, n, ALPHA))
        return float(stats.ttest_1samp(self.values, ALPHA, alternative="greater").pvalue)


def parameters(cell: Cell, values: np.ndarray, null: Iterable[int] = ()) -> np.ndarray:
    """What an interval should cover: the mean over all data sets of the same population, or 0 where that is exact."""
    group = np.arange(len(values)) % (SETS if cell.target == "subject" else 1)
    truth = np.stack([values[group == g].mean(axis=0) for g in group])
    truth[:, list(null)] = 0.0
    return truth


def false_discoveries(p: np.ndarray, null: np.ndarray) -> np.ndarray:
    """Share of true nulls among the rejected, of each data set."""
    rejected = p < ALPHA
    return np.asarray((rejected & null).sum(axis=1) / np.maximum(rejected.sum(axis=1), 1))


def missed(low: np.ndarray, high: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Whether an interval misses what it should cover."""
    return ((truth < low) | (truth > high)).astype(float)


def rates(cell: Cell, got: dict[str, np.ndarray], form: str) -> list[Rate]:
    """All rates of one cell in one form."""
    value = {name.split("/")[1]: array for name, array in got.items() if name.startswith(f"{form}/")}
    out: list[Rate] = []

    def add(group: str, name: str, hits: np.ndarray, *, bounded: bool = True, banded: bool = False) -> None:
        out.append(Rate(cell, form, group, name, np.asarray(hits, dtype=float), bounded, banded))

    for suffix, group in (("", "t"), ("_bootstrap", "bootstrap")):
        t_test = not suffix
        for k in NULL_SCORES:
            add(f"zero, {group}", MODELS[k], value[f"p_zero{suffix}"][:, k] < ALPHA, banded=t_test)
        for i, j in NULL_PAIRS:
            hits = value[f"p_difference{suffix}"][:, i, j] < ALPHA
            add(f"difference, {group}", f"{MODELS[j]} - {MODELS[i]}", hits, banded=t_test)
        add(f"below ceiling, {group}", "true", value[f"p_below_ceiling{suffix}"][:, 5] < ALPHA)
        add(f"power, {group}", "A above 0", value[f"p_zero{suffix}"][:, 3] < ALPHA, bounded=False)
        add(f"power, {group}", "true - A", value[f"p_difference{suffix}"][:, 5, 3] < ALPHA, bounded=False)
        add(f"power, {group}", "A below ceiling", value[f"p_below_ceiling{suffix}"][:, 3] < ALPHA, bounded=False)
    truth = parameters(cell, got["mean"], NULL_SCORES)
    miss = missed(value["interval_low"], value["interval_high"], truth)
    for k, name in enumerate(MODELS):
        add("interval misses", name, miss[:, k])
    gap = got["upper"][:, None] - got["mean"]
    miss = missed(value["ceiling_gap_low"], value["ceiling_gap_high"], parameters(cell, gap))
    for k in (3, 5):
        add("interval misses", f"upper ceiling - {MODELS[k]}", miss[:, k])
    null = np.zeros(len(MODELS), dtype=bool)
    null[list(NULL_SCORES)] = True
    add("FDR", "zero", false_discoveries(value["p_zero_corrected"], null))
    row, column = np.tril_indices(len(MODELS), -1)
    exact = {*NULL_PAIRS, (2, 0)}
    null = np.array([pair in exact for pair in zip(row.tolist(), column.tolist(), strict=True)])
    add("FDR", "difference", false_discoveries(value["p_difference_corrected"][:, row, column], null))
    null = np.array([name == "true" for name in MODELS])
    add("FDR", "below ceiling", false_discoveries(value["p_below_ceiling_corrected"], null))
    return out


def mark(table: list[Rate]) -> None:
    """Flag rates beyond the simultaneous bound, and t tests outside the band."""
    for form in {rate.form for rate in table}:
        family = [rate for rate in table if rate.form == form and rate.bounded]
        p = np.array([rate.exceeds() for rate in family])
        order = np.argsort(p)
        holm = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
        for position, value in zip(order, holm, strict=True):
            family[position].flag = "!" if value < ALPHA else ""
        for rate in family:
            if not rate.flag and rate.banded and rate.cell.large and not 0.025 <= rate.rate <= 0.065:
                rate.flag = "~"


def print_table(cells: list[Cell], datasets: int, job: Job, forms: Iterable[str]) -> None:
    """Print one table for each form: rates by cells."""
    table: list[Rate] = []
    known: dict[Cell, int] = {}
    for cell in cells:
        got = gather(job, cell, datasets)
        if got:
            known[cell] = len(got["mean"])
            for form in forms:
                table += rates(cell, got, form)
    mark(table)
    for form in forms:
        counts = ", ".join(sorted({str(n) for n in known.values()}))
        print(f"\n{form}; {job.compare}; {job.n_draws} draws; data sets: {counts}")
        print(f"{'':49s}" + "".join(f"{cell!s:>17s}" for cell in known))
        lines = dict.fromkeys((rate.group, rate.name) for rate in table if rate.form == form)
        for group, name in lines:
            row = [r for r in table if r.form == form and (r.group, r.name) == (group, name)]
            found = {rate.cell: f"{rate.rate:.3f}{rate.flag or ' '}" for rate in row}
            print(f"{group:26s}{name:23s}" + "".join(f"{found.get(cell, ''):>17s}" for cell in known))
        bounded = [rate for rate in table if rate.form == form and rate.bounded]
        print(
            f"{sum(rate.flag == '!' for rate in bounded)} of {len(bounded)} rates exceed {ALPHA} beyond chance, "
            f"{sum(rate.flag == '~' for rate in bounded)} of "
            f"{sum(rate.banded and rate.cell.large for rate in bounded)} lie outside .025 - .065 otherwise"
        )


def main() -> None:
    """Read the command line, compute what is missing, print the table."""
    everything = [f"{target}:{size}" for target in TARGETS for size in SIZES]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--datasets", type=int, default=1000, help="data sets a cell, in blocks of 50 (default 1000)")
    parser.add_argument("--draws", type=int, default=1000, help="bootstrap draws of each data set (default 1000)")
    parser.add_argument("--cells", nargs="+", default=everything, help=f"default: {' '.join(everything)}")
    parser.add_argument("--out", type=Path, required=True, help="folder of the finished blocks")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes")
    parser.add_argument("--compare", choices=("pearson", "spearman", "rho-a", "tau-a"), default="pearson")
    parser.add_argument("--table", action="store_true", help="print what is there, compute nothing")
    parser.add_argument("--forms", nargs="+", choices=list(FORMS), default=list(FORMS), help="forms to print")
    arguments = parser.parse_args()
    cells = [Cell.parse(text) for text in arguments.cells]
    if arguments.compare != "pearson":
        cells = [cell for cell in cells if cell.target != "subject"]
    job = Job(arguments.out, arguments.draws, arguments.compare)
    if not arguments.table:
        run(cells, arguments.datasets, job, arguments.workers)
    print_table(cells, arguments.datasets, job, arguments.forms)


if __name__ == "__main__":
    main()
