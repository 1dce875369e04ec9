import pytest

from uem_t5x.inputs import postprocessors
from uem_t5x.tastes import verbalizer

pytestmark = pytest.mark.usefixtures("current_folder")


def test_reads_what_was_written(current_folder):
    one, two, three, *_ = current_folder.genres

    for taste in [([one, two], [three]), ([one], []), ([], [two, one]), ([], [])]:
        assert postprocessors.genres(verbalizer.write_answer(*taste)) == taste


def test_takes_what_the_evaluator_passes(current_folder):
    genre = current_folder.genres[0]
    text = verbalizer.write_answer([genre], [])

    assert postprocessors.genres(text, example={"inputs": []}, is_target=True) == ([genre], [])


@pytest.mark.parametrize(
    "text",
    [
        *("", "likes likes likes", "The user likes Nothing At All."),
        *("The user doesn ⁇ t like Drama.", "The user never likes Drama."),
    ],
)
def test_what_is_no_answer_is_none(text):
    assert postprocessors.genres(text) is None


def test_a_clause_that_cannot_be_read_says_nothing():
    text = "The user likes Comedy and doesn ⁇ t like Drama."
    assert postprocessors.genres(text) == (["Comedy"], [])


def test_saying_that_there_is_no_taste_is_an_answer():
    assert postprocessors.genres(" the user  has no clear taste.") == ([], [])
    assert postprocessors.genres("The user has no clear taste") == ([], [])
