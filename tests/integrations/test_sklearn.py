"""The transformer keeps scikit-learn's rules: its own checks, clone, pipelines, pickling, names, data frames."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils import estimator_checks

import simsiam
from simsiam.errors import UserError
from simsiam.integrations.sklearn import SimSiamEmbedding
from tests import tiny


@pytest.mark.parametrize(
    "check",
    [
        "check_estimator_cloneable",
        "check_estimator_repr",
        "check_no_attributes_set_in_init",
        "check_parameters_default_constructible",
        "check_get_params_invariance",
        "check_set_params",
        "check_valid_tag_types",
    ],
)
def test_scikit_learns_own_checks_that_apply(check: str) -> None:
    getattr(estimator_checks, check)("SimSiamEmbedding", SimSiamEmbedding())


def _transformer() -> SimSiamEmbedding:
    return SimSiamEmbedding("random:resnet10", size=32, device="cpu")


def test_vectors_are_those_of_embed() -> None:
    images = tiny.pixels(6)
    transformer = _transformer()
    with pytest.raises(NotFittedError):
        transformer.transform(images)
    found = transformer.fit_transform(images)
    np.testing.assert_array_equal(found, simsiam.embed(images, "random:resnet10", size=32, device="cpu"))
    assert transformer.n_features_out_ == 512
    assert transformer.get_feature_names_out()[:2].tolist() == ["simsiamembedding0", "simsiamembedding1"]
    assert len(transformer.weights_sha256_) == 64
    again = pickle.loads(pickle.dumps(transformer))
    np.testing.assert_array_equal(again.transform(images), found)
    fresh = clone(transformer)
    assert fresh.get_params() == transformer.get_params()
    assert not hasattr(fresh, "embedder_")


def test_paths_come_as_a_sequence_or_as_a_column(tmp_path: Path) -> None:
    files = [str(file) for file in sorted(tiny.flat_folder(tmp_path, images=4).iterdir())]
    transformer = _transformer().fit(files)
    expected = transformer.transform(files)
    np.testing.assert_array_equal(transformer.transform(np.array(files)), expected)
    np.testing.assert_array_equal(transformer.transform(np.array(files, object)[:, None]), expected)

    class Frame:  # what the transformer asks of pandas, polars and the like
        def to_numpy(self) -> np.ndarray:
            return np.array(files, object)[:, None]

    np.testing.assert_array_equal(transformer.transform(Frame()), expected)


def test_a_pipeline_with_a_grid_search_over_layers() -> None:
    images, labels = tiny.pixels(24), np.arange(24) % 3
    pipeline = make_pipeline(FunctionTransformer(), _transformer(), LogisticRegression(max_iter=200))
    grid = GridSearchCV(pipeline, {"simsiamembedding__layer": ["pooled", "feature2"]}, cv=2, error_score="raise")
    grid.fit(images, labels)
    assert set(grid.cv_results_["param_simsiamembedding__layer"]) == {"pooled", "feature2"}
    assert grid.predict(images[:5]).shape == (5,)
    assert grid.score(images, labels) > 0.6, "a third would be chance"


def test_without_weights_the_cure_is_named() -> None:
    with pytest.raises(UserError, match="name the weights"):
        SimSiamEmbedding().fit(None)
