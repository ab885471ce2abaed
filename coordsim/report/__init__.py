"""Answers for people: tables, figures and sentences. Nothing here simulates."""
