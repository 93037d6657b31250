"""The few requests whose shape changes on their way: OpenAI's images, where a DashScope service is to make them.

A request becomes DashScope's while it passes (`request`, out of `form`, `writing` and `pictures`), along a table of
models (`models`); the answer, or the task that it makes (`tasks`), becomes OpenAI's (`answers`), with the images in it
where the client asked for that (`downloads`). `attempt` ties it together: an attempt like any other, with the same
verdicts, deadlines and cool-downs.
"""
