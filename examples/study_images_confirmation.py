"""The study of images again: other seeds, and counts that were fixed before its first run (docs/decisions/0009).

    taut study run examples/study_images_confirmation.py --workers 2 --store confirmation.study

About 9,500 fits of half a second; stop it with Ctrl-C and it goes on where it stopped. Data as for `study_images.py`.
"""

from __future__ import annotations

from study_images import Images

from taut.stats import FixedHyperparameterEstimator, RandomSearch, Study, VarianceBySource

search = RandomSearch(50)
estimators = (FixedHyperparameterEstimator(30, search, vary, 80) for vary in ("init", "all"))
study = Study("images-confirmation", Images(), (VarianceBySource(120, noise=2), *estimators), seed=2)
