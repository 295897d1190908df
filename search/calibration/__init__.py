"""Reading a calibration: how early orders of candidates agree with the late one, and what predicts it better.

Works from the record alone and never reaches torch; the trainings themselves are `search.ladder`.
"""
