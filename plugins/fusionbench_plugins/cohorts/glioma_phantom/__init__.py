"""A glioma cohort made from an atlas, a growth equation and the signal equations of MRI: synthetic, not patients.

One thing per module: `recipe` (the knobs), `fields` (smooth random fields), `anatomy` (the warped brain), `growth`
(where the tumour is), `pathology` (what the grade decides), `compartments` (what the tumour is made of), `contrast`
(tissue constants and signal equations), `scanner` (bias, noise, gain), `subject` (all of it together) and `writing`
(BraTS-layout files). docs/phantom.md has the equations and the sources.
"""
