"""A checkpoint from the Hugging Face hub, at a commit."""

from pathlib import Path

from image.errors import PrepareError
from image.room import require_space
from startup import model_files


def download(repo: str, revision: str, target: Path) -> Path:
    """Fetch the served files of hub repository `repo` at commit `revision`. Raises PrepareError with the remedy."""
    from huggingface_hub import HfApi, errors, snapshot_download

    try:
        files = HfApi().model_info(repo, revision=revision, files_metadata=True).siblings or []
        served = [file for file in files if model_files.is_served(file.rfilename)]
        require_space(sum(file.size or 0 for file in served), target)
        snapshot_download(repo, revision=revision, local_dir=target, allow_patterns=list(model_files.SERVED))
    except errors.GatedRepoError as error:
        raise PrepareError(
            f"{repo} asks for its licence to be accepted: download it yourself and put it under models/."
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise PrepareError(f"The hub has no public model {repo!r}; check the id.") from error
    except errors.RevisionNotFoundError as error:
        raise PrepareError(f"{repo} has no commit {revision}; copy it from the repository's history.") from error
    except errors.HFValidationError as error:
        raise PrepareError(f"{repo!r} is no id of the hub's; check it.") from error
    except (errors.HTTPError, OSError) as error:  # type: ignore[attr-defined]  # of whichever HTTP library the hub uses
        raise PrepareError(f"The hub could not be reached for {repo}: {error}") from error
    return target
