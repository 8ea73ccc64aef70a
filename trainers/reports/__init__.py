"""What a person looks at after a training: tables, figures, explanations, pages."""
