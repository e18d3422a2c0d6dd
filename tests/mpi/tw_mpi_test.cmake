# tw_mpi_test(NAME RANKS COMMAND...)            the command under mpirun; passes when it exits with 0.
# tw_mpi_exit_test(NAME RANKS CODE REGEX COMMAND...)  passes when mpirun exits with CODE and the output matches REGEX.
# Both: label mpi, alone on the machine, 60 s. They run as root in a container and with fewer cores than ranks.
set(TW_MPI_ENVIRONMENT
  OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_rmaps_base_oversubscribe=1
  OMPI_MCA_hwloc_base_binding_policy=none OMPI_MCA_btl_vader_single_copy_mechanism=none
  OMPI_MCA_btl_base_warn_component_unused=0 OMP_NUM_THREADS=1)

function(tw_mpi_test name ranks)
  add_test(NAME ${name} COMMAND ${MPIEXEC_EXECUTABLE} --oversubscribe --bind-to none -np ${ranks} ${ARGN})
  set_tests_properties(${name} PROPERTIES LABELS mpi RUN_SERIAL ON TIMEOUT 60
    ENVIRONMENT "${TW_MPI_ENVIRONMENT}")
endfunction()

function(tw_mpi_exit_test name ranks code regex)
  add_test(NAME ${name} COMMAND ${CMAKE_COMMAND} -DCODE=${code} "-DREGEX=${regex}"
    -P ${CMAKE_SOURCE_DIR}/tests/mpi/expect_exit.cmake --
    ${MPIEXEC_EXECUTABLE} --oversubscribe --bind-to none -np ${ranks} ${ARGN})
  set_tests_properties(${name} PROPERTIES LABELS mpi RUN_SERIAL ON TIMEOUT 60
    ENVIRONMENT "${TW_MPI_ENVIRONMENT}")
endfunction()
