"""Options of recommendation by an autoencoder over items."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from launch.config.tasks.base import Metrics, TaskSection


class RecommenderAutoencoder(TaskSection):
    """Which items a person will like, from those the person liked already. A sample is a person, not a row."""

    READS = "tables"
    ROWS_ARE_SAMPLES = False
    SMOOTHS_LABELS = False
    USAGE = (
        "from trainers.ratings.recommender import load_recommender",
        'recommend = load_recommender("{model}")',
        'print(recommend(["an item", "another item"]))',
    )

    kind: Literal["recommender_autoencoder"] = Field(description="Which task this is; chooses the other keys.")
    user: str = Field("user", description="Column of the person.")
    item: str = Field("item", description="Column of the item.")
    rating: str | None = Field("rating", description="Column of the rating, a number. null: every row is a like.")
    min_rating: float = Field(4.0, description="Lowest rating that is a like; lower ones are left out and counted.")
    min_items: int = Field(5, ge=2, description="Likes that a person needs; people with fewer are left out and counted.")
    held_out: Annotated[float, Field(gt=0, lt=1)] = Field(
        0.2, description="Share of a person's likes, one at least, that the network does not see in an evaluation and has to rank first."
    )
    input_dropout: Annotated[float, Field(ge=0, lt=1)] = Field(0.5, description="Probability that training hides a like from the network.")
    top: int = Field(20, ge=1, description="Recommendations that count: recall and ndcg look at so many.")

    def metrics(self) -> Metrics:
        return {"recall": "max", "ndcg": "max", "popularity_recall": "max", "loss": "min"}

    def columns(self) -> dict[str, list[str]]:
        rating = {} if self.rating is None else {"task.rating": [self.rating]}
        return {"task.user": [self.user], "task.item": [self.item]} | rating
