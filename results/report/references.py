"""BibTeX of the methods, networks and programs that a study may have used, by what was used.

Datasets are not here: their entries come from the cards of the shard sets, through the runs.
"""

from __future__ import annotations

import re

ENTRIES: dict[str, str] = {
    "simclr": """@inproceedings{chen2020simclr,
  author = {Chen, Ting and Kornblith, Simon and Norouzi, Mohammad and Hinton, Geoffrey},
  title = {A Simple Framework for Contrastive Learning of Visual Representations},
  booktitle = {International Conference on Machine Learning},
  year = {2020}
}""",
    "vicreg": """@inproceedings{bardes2022vicreg,
  author = {Bardes, Adrien and Ponce, Jean and LeCun, Yann},
  title = {{VICReg}: Variance-Invariance-Covariance Regularization for Self-Supervised Learning},
  booktitle = {International Conference on Learning Representations},
  year = {2022}
}""",
    "lars": """@article{you2017lars,
  author = {You, Yang and Gitman, Igor and Ginsburg, Boris},
  title = {Large Batch Training of Convolutional Networks},
  journal = {arXiv:1708.03888},
  year = {2017}
}""",
    "adamw": """@inproceedings{loshchilov2019adamw,
  author = {Loshchilov, Ilya and Hutter, Frank},
  title = {Decoupled Weight Decay Regularization},
  booktitle = {International Conference on Learning Representations},
  year = {2019}
}""",
    "adam": """@inproceedings{kingma2015adam,
  author = {Kingma, Diederik P. and Ba, Jimmy},
  title = {Adam: A Method for Stochastic Optimization},
  booktitle = {International Conference on Learning Representations},
  year = {2015}
}""",
    "resnet": """@inproceedings{he2016resnet,
  author = {He, Kaiming and Zhang, Xiangyu and Ren, Shaoqing and Sun, Jian},
  title = {Deep Residual Learning for Image Recognition},
  booktitle = {IEEE Conference on Computer Vision and Pattern Recognition},
  year = {2016}
}""",
    "densenet": """@inproceedings{huang2017densenet,
  author = {Huang, Gao and Liu, Zhuang and van der Maaten, Laurens and Weinberger, Kilian Q.},
  title = {Densely Connected Convolutional Networks},
  booktitle = {IEEE Conference on Computer Vision and Pattern Recognition},
  year = {2017}
}""",
    "convnext": """@inproceedings{liu2022convnext,
  author = {Liu, Zhuang and Mao, Hanzi and Wu, Chao-Yuan and Feichtenhofer, Christoph and Darrell, Trevor and
    Xie, Saining},
  title = {A {ConvNet} for the 2020s},
  booktitle = {IEEE/CVF Conference on Computer Vision and Pattern Recognition},
  year = {2022}
}""",
    "vit": """@inproceedings{dosovitskiy2021vit,
  author = {Dosovitskiy, Alexey and Beyer, Lucas and Kolesnikov, Alexander and Weissenborn, Dirk and Zhai, Xiaohua and
    Unterthiner, Thomas and Dehghani, Mostafa and Minderer, Matthias and Heigold, Georg and Gelly, Sylvain and
    Uszkoreit, Jakob and Houlsby, Neil},
  title = {An Image is Worth 16x16 Words: Transformers for Image Recognition at Scale},
  booktitle = {International Conference on Learning Representations},
  year = {2021}
}""",
    "imagenet": """@article{russakovsky2015imagenet,
  author = {Russakovsky, Olga and Deng, Jia and Su, Hao and Krause, Jonathan and Satheesh, Sanjeev and Ma, Sean and
    Huang, Zhiheng and Karpathy, Andrej and Khosla, Aditya and Bernstein, Michael and Berg, Alexander C. and
    Fei-Fei, Li},
  title = {{ImageNet} Large Scale Visual Recognition Challenge},
  journal = {International Journal of Computer Vision},
  volume = {115},
  number = {3},
  pages = {211--252},
  year = {2015}
}""",
    "timm": """@misc{wightman2019timm,
  author = {Wightman, Ross},
  title = {{PyTorch} Image Models},
  howpublished = {\\url{https://github.com/huggingface/pytorch-image-models}},
  year = {2019}
}""",
    "torch": """@inproceedings{paszke2019pytorch,
  author = {Paszke, Adam and Gross, Sam and Massa, Francisco and Lerer, Adam and Bradbury, James and Chanan, Gregory and
    Killeen, Trevor and Lin, Zeming and Gimelshein, Natalia and Antiga, Luca and others},
  title = {{PyTorch}: An Imperative Style, High-Performance Deep Learning Library},
  booktitle = {Advances in Neural Information Processing Systems},
  year = {2019}
}""",
    "delong": """@article{delong1988,
  author = {DeLong, Elizabeth R. and DeLong, David M. and Clarke-Pearson, Daniel L.},
  title = {Comparing the Areas under Two or More Correlated Receiver Operating Characteristic Curves: A Nonparametric
    Approach},
  journal = {Biometrics},
  volume = {44},
  number = {3},
  pages = {837--845},
  year = {1988}
}""",
    "obuchowski": """@article{obuchowski1997,
  author = {Obuchowski, Nancy A.},
  title = {Nonparametric Analysis of Clustered {ROC} Curve Data},
  journal = {Biometrics},
  volume = {53},
  number = {2},
  pages = {567--578},
  year = {1997}
}""",
    "readers": """@article{obuchowski1995,
  author = {Obuchowski, Nancy A. and Rockette, Howard E.},
  title = {Hypothesis Testing of Diagnostic Accuracy for Multiple Readers and Multiple Tests: An {ANOVA} Approach with
    Dependent Observations},
  journal = {Communications in Statistics - Simulation and Computation},
  volume = {24},
  number = {2},
  pages = {285--308},
  year = {1995}
}""",
    "wilson": """@article{wilson1927,
  author = {Wilson, Edwin B.},
  title = {Probable Inference, the Law of Succession, and Statistical Inference},
  journal = {Journal of the American Statistical Association},
  volume = {22},
  number = {158},
  pages = {209--212},
  year = {1927}
}""",
    "holm": """@article{holm1979,
  author = {Holm, Sture},
  title = {A Simple Sequentially Rejective Multiple Test Procedure},
  journal = {Scandinavian Journal of Statistics},
  volume = {6},
  number = {2},
  pages = {65--70},
  year = {1979}
}""",
}
"""What was used -> its entry."""

FAMILIES = {"resnet": "resnet", "densenet": "densenet", "convnext": "convnext", "vit": "vit"}
"""Beginning of an architecture's name -> the entry of its paper."""


def key_of(entry: str) -> str | None:
    """The citation key of a BibTeX entry; None for text that is none."""
    found = re.match(r"\s*@\w+\s*\{\s*([^,\s{}]+)\s*,", entry)
    return found.group(1) if found else None


def family(arch: str) -> str | None:
    """Which of `ENTRIES` an architecture is described in; None for others, and for nets that only bear its name."""
    return next((name for start, name in FAMILIES.items() if re.match(rf"{start}\d*(_|$|\d)", arch)), None)
