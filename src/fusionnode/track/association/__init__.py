"""Whose measurement is it?"""
