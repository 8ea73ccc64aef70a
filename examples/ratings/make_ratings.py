"""Writes ratings whose structure is known: python make_ratings.py ratings.csv [--people 2000] [--items 400] [--seed 0]

Each item has one of eight genres, and a popularity that falls like 1 / rank. Each person likes two genres: rates items of them
six times as often as others, and 1.5 stars higher. So what most people like says little of what one person likes.
"""

import argparse
import csv
import random

GENRES = "comedy drama horror western romance war crime animation".split()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("path")
    parser.add_argument("--people", type=int, default=2000)
    parser.add_argument("--items", type=int, default=400)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    source = random.Random(options.seed)
    items = [f"{GENRES[number % len(GENRES)]}-{number // len(GENRES)}" for number in range(options.items)]
    popularity = [1 / (1 + rank) for rank in range(options.items)]
    source.shuffle(popularity)
    with open(options.path, "w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(("user", "item", "rating"))
        for person in range(options.people):
            liked = set(source.sample(GENRES, 2))
            weights = [share * (6 if item.partition("-")[0] in liked else 1) for item, share in zip(items, popularity, strict=True)]
            for item in dict.fromkeys(source.choices(items, weights, k=source.randint(20, 80))):
                stars = 3 + 1.5 * (item.partition("-")[0] in liked) + source.gauss(0, 0.7)
                rows.writerow((f"p{person}", item, min(5, max(1, round(stars)))))


if __name__ == "__main__":
    main()
