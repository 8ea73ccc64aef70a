"""Each task's own options, one class and one file a task, and their union."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from launch.config.tasks.autoencoder import Autoencoder
from launch.config.tasks.base import Metrics, TaskSection
from launch.config.tasks.causal_lm import CausalLm
from launch.config.tasks.detection_faster_rcnn import DetectionFasterRcnn
from launch.config.tasks.distill import Distill
from launch.config.tasks.glue import Glue
from launch.config.tasks.image_classification import ImageClassification
from launch.config.tasks.masked_lm import MaskedLm
from launch.config.tasks.multitask import Multitask
from launch.config.tasks.ner import Ner
from launch.config.tasks.own import OwnTask
from launch.config.tasks.pictures import AnnotatedPictures, Pictures, SquareViews
from launch.config.tasks.question_answering import QuestionAnswering
from launch.config.tasks.recommender_autoencoder import RecommenderAutoencoder
from launch.config.tasks.segmentation_fcn import SegmentationFcn
from launch.config.tasks.seq2seq import Seq2Seq
from launch.config.tasks.speech_ctc import SpeechCtc
from launch.config.tasks.text_classification import TextClassification
from launch.config.tasks.text_regression import TextRegression

__all__ = [
    "AnnotatedPictures",
    "Autoencoder",
    "DetectionFasterRcnn",
    "Distill",
    "Glue",
    "ImageClassification",
    "Metrics",
    "Multitask",
    "Ner",
    "OwnTask",
    "Pictures",
    "QuestionAnswering",
    "RecommenderAutoencoder",
    "SegmentationFcn",
    "Seq2Seq",
    "SpeechCtc",
    "SquareViews",
    "TaskOptions",
    "TaskSection",
    "TextClassification",
    "TextRegression",
]

TaskOptions = Annotated[
    TextClassification
    | TextRegression
    | Distill
    | Glue
    | Ner
    | Multitask
    | QuestionAnswering
    | ImageClassification
    | Autoencoder
    | SegmentationFcn
    | DetectionFasterRcnn
    | Seq2Seq
    | SpeechCtc
    | RecommenderAutoencoder
    | MaskedLm
    | CausalLm
    | OwnTask,
    Field(discriminator="kind"),
]
"""What stands under `task:`; `kind` chooses."""
