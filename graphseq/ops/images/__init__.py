"""Operations on images and on masks of their points."""
