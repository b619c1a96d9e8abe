"""How the gallery takes pyflow's figures, which pyplot does not know."""

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from sphinx_gallery.scrapers import figure_rst

import pyflow


class Scraper:
    """Saves every figure that a block of a script has made; its label is its alternative text."""

    def __init__(self):
        self.saved = []  # whole figures: the number of one that is gone may be another's

    def __repr__(self):
        return "Scraper()"  # part of the configuration: the same text means nothing to build again

    def __call__(self, block, block_vars, gallery_conf):
        paths, texts = [], []
        for value in list(block_vars["example_globals"].values()):
            if isinstance(value, Figure) and not any(value is figure for figure in self.saved):
                path = next(block_vars["image_path_iterator"])
                value.savefig(path, dpi=110, bbox_inches="tight")
                self.saved.append(value)
                paths.append(path)
                texts.append(value.get_label() or "figure of this page")
        plt.close("all")
        return figure_rst(paths, gallery_conf["src_dir"], "; ".join(texts))


scraper = Scraper()


def reset(gallery_conf, fname):
    """Let a script begin as it would alone."""
    plt.close("all")
    plt.rcdefaults()
    np.random.seed(0)
    pyflow.set_num_threads(None)
