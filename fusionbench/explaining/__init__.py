"""What a model looks at: Grad-CAM, attention and features of one subject, from the fit that never trained on it.

    explainer = Explainer.open(folder, store, registry)
    case = explainer.case("Phantom_003", method="", baseline="")
    files = explained_files(explainer.explain(case))        # file name -> bytes, to be written into one folder

The equations are in `gradcam`, what is caught of a model in `watching`, what is said of it in `pages`.
"""

from fusionbench.explaining.explainer import Account, Explainer, Explanation
from fusionbench.explaining.pages import Entry, explained_files, folder_name, index_page
from fusionbench.explaining.selecting import Case, Rule

__all__ = [
    "Account",
    "Case",
    "Entry",
    "Explainer",
    "Explanation",
    "Rule",
    "explained_files",
    "folder_name",
    "index_page",
]
