"""Linear support vector machines with the squared hinge loss: many at once, on the same features, to a known accuracy.

Each problem is min over w of 0.5 |w|^2 + sum_i c_i max(0, 1 - y_i w'x_i)^2, where x ends in a constant 1 and the
intercept is therefore regularised: what scikit-learn's LinearSVC (liblinear, dual) solves. w is a combination b of the
training rows, w = X'b, so only products with K = XX' + 1 are needed, and P problems share each of them: classes,
folds (a left-out row has c_i = 0) and costs are columns of one matrix.

The method is Newton's, globalised by a line search. Its linear systems (I + T K) step = -residual, T = 2 c_i on the
rows that violate the margin, are self-adjoint in the inner product a'Kb and solved there by conjugate gradients in
float32, preconditioned along the leading directions of K, or directly where few rows violate the margin. The objective
is 1-strongly convex in w, so |gradient| bounds the distance to the solution: the stopping rule is a guarantee.
Sources: Keerthi and DeCoste 2005 (finite Newton for the squared hinge); Chapelle 2007 (the primal in kernel form).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from simsiam.engine.distributed import core_threads
from simsiam.errors import UserError
from simsiam.evaluation.classification.svm_kernel import Directions, Kernel

ACCURACY = 1e-5  # of w, relative: |w - solution| <= ACCURACY |w|
MOST_NEWTON_STEPS = 60
INNER_REDUCTION = 0.03  # of the gradient, in one Newton step
MOST_INNER_STEPS = 400
# A system is factorised if at most so many rows violate the margin: the more, the worse it is conditioned (by 2 c).
DIRECT_ROWS = ((80.0, 4000), (8.0, 2500), (2.0**-4, 1000), (0.0, 128))
LEAST_COLUMNS = 4  # that a thread takes, so that its products stay matrix products
HALVINGS = 30  # of a step in the line search

Preconditioner = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]  # a, Ka -> M a, K M a


@dataclass(frozen=True, kw_only=True)
class Solution:
    """P solved problems."""

    combinations: Tensor  # n x P, float64: b
    decisions: Tensor  # n x P, float64: w'x of every training row, left-out ones too
    accuracy: float  # the worst bound on |w - solution| / |w|


def solve_path(kernel: Kernel, targets: Tensor, weights: Tensor, costs: Sequence[float]) -> Iterator[Solution]:
    """Solve for each cost in the order given, each from the solution before it (ascending costs are fastest).

    Args:
        kernel: of the n training rows.
        targets: n x P, +1 or -1.
        weights: n x P: a row's class weight, or 0 to leave it out.
        costs: multiply the weights.
    """
    last: Solution | None = None
    for cost in costs:
        last = solve(kernel, targets, cost * weights, start=last)
        yield last


def solve(kernel: Kernel, targets: Tensor, costs: Tensor, *, start: Solution | None = None) -> Solution:
    """Solve P problems.

    Args:
        kernel: of the n training rows.
        targets: n x P, +1 or -1.
        costs: n x P: c_i of each row in each problem, 0 to leave it out.
        start: an earlier solution to begin from.

    Raises UserError where a solution is not finite.
    """
    targets, costs = targets.double(), costs.double()
    zeros = torch.zeros_like(targets)
    start = start or Solution(combinations=zeros, decisions=zeros, accuracy=torch.inf)

    def solve_part(columns: Tensor) -> Solution:
        return _newton(
            kernel, targets[:, columns], costs[:, columns], start.combinations[:, columns], start.decisions[:, columns]
        )

    columns = torch.arange(targets.shape[1], device=kernel.device)
    with core_threads(kernel.device, most=len(columns) // LEAST_COLUMNS) as threads:
        parts = threads.map(solve_part, torch.tensor_split(columns, threads.count))
    return Solution(
        combinations=torch.cat([part.combinations for part in parts], 1),
        decisions=torch.cat([part.decisions for part in parts], 1),
        accuracy=max(part.accuracy for part in parts),
    )


def _newton(kernel: Kernel, targets: Tensor, costs: Tensor, b: Tensor, f: Tensor) -> Solution:
    errors = torch.full((targets.shape[1],), torch.inf, dtype=torch.float64, device=targets.device)
    open_columns = torch.arange(targets.shape[1], device=targets.device)
    for _ in range(MOST_NEWTON_STEPS):
        part = _Columns(kernel, b, f, targets, costs, open_columns)
        errors[open_columns] = part.error
        wanting = ~(part.error <= ACCURACY)
        if not bool(wanting.any()):
            break
        part = part.only(wanting)
        open_columns = open_columns[wanting]
        b[:, open_columns], f[:, open_columns] = part.newton_step(kernel)
    if not bool(errors.isfinite().all()):
        raise UserError(
            "a support vector machine overflowed: its features are too large, or --costs or --positive-weight."
        )
    return Solution(combinations=b, decisions=f, accuracy=float(errors.max()))


class _Columns:
    """The problems that are still open, at their current point."""

    def __init__(self, kernel: Kernel, b: Tensor, f: Tensor, targets: Tensor, costs: Tensor, columns: Tensor) -> None:
        self.b, self.f, self.y, self.c = (each[:, columns] for each in (b, f, targets, costs))
        self.t = torch.where(self.y * self.f < 1, 2 * self.c, 0.0)  # curvature of the loss
        pull = self.t * (self.y - self.f)
        self.residual = self.b - pull  # gradient = X' residual
        self.seen = self.f - kernel.times(pull)  # K residual
        length = (self.residual * self.seen).sum(0).clamp_min(0).sqrt()
        self.error = length / (self.b * self.f).sum(0).clamp_min(1e-300).sqrt()

    def only(self, chosen: Tensor) -> _Columns:
        """Some of the columns."""
        part = object.__new__(_Columns)
        for name, value in vars(self).items():
            setattr(part, name, value[..., chosen])
        return part

    def newton_step(self, kernel: Kernel) -> tuple[Tensor, Tensor]:
        """The next b and f."""
        violated, curvature = (self.t > 0).sum(0), self.t.amax(0)
        direct = torch.zeros_like(violated, dtype=torch.bool)
        for least, rows in DIRECT_ROWS:
            direct |= (curvature >= least) & (violated <= rows)
        step = -self.residual
        for column in direct.nonzero()[:, 0].tolist():
            step[:, column] += _direct(kernel, self.t[:, column], self.seen[:, column])
        if not bool(direct.all()):
            rest = ~direct
            t, r, kr = (each[:, rest].float() for each in (self.t, -self.residual, -self.seen))
            step[:, rest] = _conjugate_gradients(kernel, t, r, kr).double()
        along = kernel.times(step)
        length = self._length(step, along)
        return self.b + length * step, self.f + length * along

    def _length(self, step: Tensor, along: Tensor) -> Tensor:
        """Halve each column's step until its objective falls."""
        before = self._objective(self.b, self.f)
        length = torch.ones_like(before)
        for _ in range(HALVINGS):
            after = self._objective(self.b + length * step, self.f + length * along)
            rises = after > before * (1 + 1e-12)
            if not bool(rises.any()):
                break
            length = torch.where(rises, length / 2, length)
        return length

    def _objective(self, b: Tensor, f: Tensor) -> Tensor:
        return 0.5 * (b * f).sum(0) + (self.c * (1 - self.y * f).clamp_min(0).square()).sum(0)


def _direct(kernel: Kernel, t: Tensor, seen: Tensor) -> Tensor:
    """S (I + SKS)^-1 S (K residual), S = sqrt(T), of one column: what the Newton step adds to -residual.

    In float32, whose errors the next step corrects, unless rounding makes the system indefinite.
    """
    rows = t.nonzero()[:, 0]
    for dtype in (torch.float32, torch.float64):
        s = t[rows].sqrt().to(dtype)
        system = kernel.block(rows, dtype).mul_(s[:, None]).mul_(s)
        system.diagonal().add_(1)
        factor, failed = torch.linalg.cholesky_ex(system)
        if not int(failed):
            break
    solved = torch.cholesky_solve((s * seen[rows].to(dtype))[:, None], factor)[:, 0]
    return torch.zeros_like(t).index_copy(0, rows, (s * solved).double())


def _conjugate_gradients(kernel: Kernel, t: Tensor, r: Tensor, kr: Tensor) -> Tensor:
    """Solve (I + TK) x = r roughly, given Kr; in the inner product a'Kb every iterate is a direction of descent."""
    precondition = _preconditioner(kernel, t)
    x = torch.zeros_like(r)
    z, kz = precondition(r, kr)
    p, kp = z, kz
    rz, goal = (r * kz).sum(0), INNER_REDUCTION**2 * (r * kr).sum(0)
    live = goal > 0
    for _ in range(MOST_INNER_STEPS):
        tkp = t * kp
        q, kq = p + tkp, kp + kernel.times(tkp)
        bend = (p * kq).sum(0)
        live = live & (bend > 0) & (rz > 0)  # rounding ends a column that is solved to float32
        alpha = torch.where(live, rz / bend, 0.0)
        x = x + alpha * p
        r, kr = r - alpha * q, kr - alpha * kq
        live = live & ((r * kr).sum(0) > goal)
        if not bool(live.any()):
            break
        z, kz = precondition(r, kr)
        before, rz = rz, (r * kz).sum(0)
        beta = torch.where(live, rz / before, 0.0)
        p, kp = z + beta * p, kz + beta * kp
    return x


def _preconditioner(kernel: Kernel, t: Tensor) -> Preconditioner:
    """The inverse of the system within the span of K's leading directions, the identity outside it."""
    directions = kernel.directions(_direction_count(float(t.max())))
    q, kq = directions.combinations, directions.projections
    excess = torch.cholesky_inverse(torch.linalg.cholesky(_curvatures(directions, t)))  # P x r x r
    excess = torch.eye(q.shape[1], device=q.device) - excess

    def apply(a: Tensor, ka: Tensor) -> tuple[Tensor, Tensor]:
        inside = (kq.T @ a).T[:, :, None]  # P x r x 1
        surplus = (excess @ inside)[:, :, 0].T  # r x P
        return a - q @ surplus, ka - kq @ surplus

    return apply


def _curvatures(directions: Directions, t: Tensor) -> Tensor:
    """I + (KQ)' T (KQ) of each column, P x r x r."""
    kq = directions.projections
    systems = kq.new_empty(t.shape[1], kq.shape[1], kq.shape[1])
    for column, curvature in enumerate(t.T.contiguous()):
        rows = curvature.nonzero()[:, 0]
        seen = kq[rows]
        systems[column] = seen.T @ (curvature[rows, None] * seen)
    systems.diagonal(dim1=1, dim2=2).add_(1)
    return systems


def _direction_count(curvature: float) -> int:
    """More directions for higher costs, where the systems are worse conditioned and the directions pay."""
    return 16 if curvature < 2**-7 else 64 if curvature < 2**-3 else 256
