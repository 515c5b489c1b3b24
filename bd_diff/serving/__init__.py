"""Running it for people: folders of photographs, a page, and what fails there."""
