"""The same meter, by somebody who believes that what is acknowledged has arrived."""

import app


class Meter(app.Meter):
    def place(self, reading: float) -> None:
        self.client.publish(self.topic, str(reading), qos=1).wait_for_publish(app.WAIT_S)
