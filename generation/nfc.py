"""Texts as Unicode's normal form C has them, which some tokenizers encode: characters and marks composed."""

from generation.tokenizer_file import CLASSES, TokenizerFile, unicode_version


def nfc(text: str, file: TokenizerFile) -> str:
    """What the tokenizers library's NFC makes of `text`.

    Python says it where it knows the same characters as the library. Others, very rare ones, are left to the library,
    which is imported for them alone.
    """
    import unicodedata  # a megabyte, and no text in ASCII needs it

    older = unicode_version(unicodedata.unidata_version) < file.options["unicode"]
    if older or any(file.class_of(character) & CLASSES["library_composes"] for character in set(text)):
        from tokenizers.normalizers import NFC

        composed: str = NFC().normalize_str(text)
        return composed
    return unicodedata.normalize("NFC", text)
