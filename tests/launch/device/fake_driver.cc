// A driver library that is none: NUM_DEVICES devices, cuInit's answer INIT_CODE.
extern "C" {

int cuInit(unsigned) { return INIT_CODE; }
int cuDeviceGetCount(int* count) {
  *count = NUM_DEVICES;
  return 0;
}
int cuDeviceGet(int* device, int ordinal) {
  *device = ordinal;
  return 0;
}
int cuDeviceGetName(char* name, int size, int device) {
  const char text[] = "Fake GPU 0";
  for (int i = 0; i < size && i < static_cast<int>(sizeof(text)); ++i) name[i] = text[i];
  name[9] = static_cast<char>('0' + device / 2);
  return 0;
}

}  // extern "C"
