"""Operations on packed graphs."""
